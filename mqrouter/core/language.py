"""Which language a text is in, as far as that is plain: by its script, and by the commonest words of a few languages.

It gives no opinion rather than a wrong one: what is short, mixed, or of a language not listed here has none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

MAIN_SHARE = 0.75
"""Of the letters: what a text's script must make up."""
LEAST_LETTERS = 8
LEAST_HITS = 3
"""Different common words that an answer must hold for its language to count; a question needs one less."""
LEAST_SHARE = 0.15
"""Of all different words: what those common ones must make up, for names and keys are common words somewhere."""
LEAD = 2.0
"""How many times more they must be than those of the other language."""

_SCRIPTS = (
    ("latin", ((0x41, 0x24F), (0x1E00, 0x1EFF))),
    ("greek", ((0x370, 0x3FF),)),
    ("cyrillic", ((0x400, 0x52F),)),
    ("hebrew", ((0x590, 0x5FF),)),
    ("arabic", ((0x600, 0x6FF), (0x750, 0x77F))),
    ("devanagari", ((0x900, 0x97F),)),
    ("bengali", ((0x980, 0x9FF),)),
    ("tamil", ((0xB80, 0xBFF),)),
    ("telugu", ((0xC00, 0xC7F),)),
    ("thai", ((0xE00, 0xE7F),)),
    ("kana", ((0x3040, 0x30FF),)),
    ("han", ((0x3400, 0x9FFF), (0xF900, 0xFAFF))),
    ("hangul", ((0x1100, 0x11FF), (0xAC00, 0xD7AF))),
    ("ethiopic", ((0x1200, 0x137F),)),
)

_COMMON_WORDS = {
    "en": "the a an i per is are was were what how why when which who where do does did can could should would will"
    " my your it this that these and or of to in on at for from with not have has be been you we they there if but",
    "de": "der die das den dem des ein eine einen einem einer ist sind war waren was wie warum wann welche wer wo ich"
    " du er sie es wir ihr mein meine und oder von zu zum zur im auf für mit nicht haben hat werden wird kann soll"
    " aber wenn auch sich bei nach aus",
    "fr": "le la les un une des du est sont était que qui quoi comment pourquoi quand quel quelle où je tu il elle nous"
    " vous ils mon ma mes ce cette ces et ou de à au aux dans sur pour avec pas ne avoir être peut si mais plus par",
    "es": "el la los las un una unos unas es son era que qué cómo por cuándo cuál quién dónde yo tú él ella nosotros mi"
    " mis su sus este esta y o a le de del al en para con no se lo puede si pero más está están tiene hay",
    "it": "il lo la gli le un una uno è sono era che chi come perché quando quale dove io tu lui lei noi mio mia questo"
    " questa e o di del della dei delle al alla nel nella per con non si può se ma più da sul",
    "pt": "o a os as um uma é são era que como por quando qual quem onde eu ele ela nós meu minha este esta e ou de do"
    " da dos das ao no na nos nas em para com não se pode mas mais está tem há isso você",
    "nl": "de het een is zijn was waren wat hoe waarom wanneer welke wie waar ik jij hij zij wij mijn dit dat deze en"
    " of van naar in op voor met niet hebben heeft worden wordt kan moet maar als ook bij uit er je",
    "pl": "jest są był była było co jak dlaczego kiedy który która kto gdzie ja ty on ona my mój moja ten ta to i lub w"
    " z ze na do dla od nie się może ale jeśli po przez oraz czy już tylko mam moje",
    "sv": "är var vad hur varför när vilken vem jag du han hon vi min mitt mina det den de en ett och eller av till i"
    " på för med inte har kan ska men om också som från att sig",
    "da": "er var hvad hvordan hvorfor hvornår hvilken hvem hvor jeg du han hun vi min mit mine det den de en et og"
    " eller af til i på for med ikke har kan skal men hvis også som fra at sig",
    "fi": "on ovat oli mitä mikä miten miksi milloin kuka missä minä sinä hän me minun tämä se ja tai ei että kun jos"
    " mutta myös voi olla kuin sen niin",
    "tr": "ne nasıl neden hangi kim nerede ben sen biz benim bu şu ve veya ile için değil var yok mi mı mu mü bir daha"
    " çok ama gibi olarak olan kadar",
    "id": "adalah apa bagaimana mengapa kapan siapa mana saya kamu kami kita ini itu dan atau dari ke di pada untuk"
    " dengan tidak bisa dapat akan jika tetapi yang sudah juga",
    "sw": "ni nini vipi kwa nini lini nani wapi mimi wewe sisi yangu hii hiyo na au ya wa za katika kwenye kutoka bila"
    " si hapana ana kama lakini pia yako hili",
    "ru": "и в не на что как почему когда какой какая кто где я ты он она мы мой моя это этот с по для от из но если"
    " у за к до же бы вы так мне есть",
    "uk": "і й в у не на що як чому коли який яка хто де я ти він вона ми мій моя це цей з по для від із але якщо за"
    " до та би ви так мені є",
}  # fmt: skip
_COMMON = {language: frozenset(words.split()) for language, words in _COMMON_WORDS.items()}

# A question that names a language, or asks for a translation, may well be answered in another than its own.
_NAMES = re.compile(
    r"\b(?:translat|übersetz|tradu|vertaal|english|german|french|spanish|italian|portuguese|dutch|polish|swedish|danish"
    r"|norwegian|finnish|turkish|indonesian|swahili|russian|ukrainian|chinese|mandarin|japanese|korean|arabic|hindi|greek"
    r"|hebrew|thai|latin|englisch|deutsch|französisch|spanisch|italienisch|anglais|allemand|français|espagnol|italien"
    r"|inglés|alemán|francés|español|inglese|tedesco|francese|spagnolo|italiano|inglês|francês|espanhol|português"
    r"|engels|duits|frans|spaans|językiem|переве|перекла)"
    r"|[翻訳译譯]|[日英中法德韩]语|[日英中]文|[日英韓]語",
    re.IGNORECASE,
)
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The languages, or scripts, of a question and of its answer where they plainly differ."""

    asked: str
    answered: str


def mismatch(question: str, answer: str) -> Mismatch | None:
    """Returns how the answer's language differs from the question's; None where it does not, or nobody can tell."""
    if _NAMES.search(question):
        return None
    asked, answered = _CODE.sub(" ", question), _CODE.sub(" ", answer)
    scripts = _script(asked), _script(answered)
    if scripts[0] is None or scripts[1] is None:
        return None
    if scripts[0] != scripts[1]:
        return Mismatch(scripts[0], scripts[1])
    in_question, in_answer = _words(asked), _words(answered)
    own, other = _likeliest(in_question), _likeliest(in_answer)
    if own is None or other is None or own == other:
        return None
    # What two languages share says nothing of which of them it is.
    owns, others = _COMMON[own] - _COMMON[other], _COMMON[other] - _COMMON[own]
    is_asked_plainly = _is_plain(in_question, owns, others, LEAST_HITS - 1)
    is_answered_plainly = _is_plain(in_answer, others, owns, LEAST_HITS)
    return Mismatch(own, other) if is_asked_plainly and is_answered_plainly else None


def _script(text: str) -> str | None:
    """Returns the script that most letters are of; Japanese is "kana", however many of its characters are Han."""
    counts = Counter(script for letter in text if letter.isalpha() and (script := _script_of(ord(letter))) is not None)
    letters = sum(1 for letter in text if letter.isalpha())
    if counts["kana"]:
        counts["kana"] += counts.pop("han", 0)
    wide = counts["kana"] + counts["han"] + counts["hangul"]
    if letters < (LEAST_LETTERS if not wide else LEAST_LETTERS // 2):
        return None
    script, count = counts.most_common(1)[0] if counts else ("", 0)
    return script if count >= MAIN_SHARE * letters else None


def _script_of(code: int) -> str | None:
    return next((name for name, ranges in _SCRIPTS for low, high in ranges if low <= code <= high), None)


def _is_plain(words: Set[str], wanted: Set[str], unwanted: Set[str], least: int) -> bool:
    hits = len(words & wanted)
    return hits >= max(least, LEAD * len(words & unwanted), LEAST_SHARE * len(words))


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.casefold()))


def _likeliest(words: Set[str]) -> str | None:
    """Returns the language with the most common words in the text; None where there is none of any."""
    hits, name = max((len(words & common), name) for name, common in _COMMON.items())
    return name if hits else None
