from mqrouter.cli.main import main

main()
