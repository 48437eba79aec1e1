"""The pages for people: rendered here, whole without scripts, and fed with changes where there are any."""
