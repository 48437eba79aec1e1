"""An answer in another language than the question's, and what only looks like one."""

from __future__ import annotations

import itertools

import pytest

from mqrouter.core.language import Mismatch, mismatch

QUESTIONS = {
    "en": "Why are the leaves of my tomatoes turning yellow at the bottom?",
    "de": "Warum werden die Blätter von meinen Tomaten unten gelb?",
    "fr": "Pourquoi les feuilles de mes tomates sont elles jaunes en bas ?",
    "es": "¿Por qué se ponen amarillas las hojas de mis tomates?",
    "it": "Perché le foglie dei miei pomodori sono gialle in basso?",
    "pt": "Por que as folhas do meu tomateiro estão amarelas em baixo?",
    "nl": "Waarom worden de bladeren van mijn tomaten onderaan geel?",
    "pl": "Dlaczego liście na moich pomidorach są żółte od dołu?",
    "ru": "Почему листья у моих помидоров желтеют снизу?",
    "el": "Γιατί κιτρινίζουν τα φύλλα της ντομάτας μου;",
    "hi": "मेरे टमाटर के पत्ते पीले क्यों हो रहे हैं?",
    "ar": "لماذا تتحول أوراق الطماطم إلى اللون الأصفر؟",
    "zh": "为什么我的番茄叶子从下面开始变黄？",
    "ja": "トマトの葉が下から黄色くなるのはなぜですか。",
    "ko": "토마토 잎이 왜 아래부터 노랗게 변하나요?",
}
ANSWERS = {
    "en": "The lower leaves turn yellow when the plant lacks nitrogen, or when it has been watered too much.",
    "de": "Die unteren Blätter werden gelb, wenn der Pflanze Stickstoff fehlt oder wenn sie zu viel Wasser hat.",
    "fr": "Les feuilles du bas jaunissent quand la plante manque d'azote ou si elle est dans un sol trop humide.",
    "es": "Las hojas de abajo se ponen amarillas si a la planta le falta nitrógeno o si hay agua en el suelo.",
    "it": "Le foglie in basso ingialliscono quando la pianta non ha azoto o se la terra è sempre bagnata.",
    "pt": "As folhas de baixo ficam amarelas quando a planta não tem nitrogênio ou se o solo está muito molhado.",
    "nl": "De onderste bladeren worden geel als de plant niet genoeg stikstof heeft of als de grond te nat is.",
    "pl": "Dolne liście żółkną, bo roślina nie ma azotu albo jest za mokro i korzenie się duszą w ziemi.",
    "ru": "Нижние листья желтеют, если растению не хватает азота или если его поливают слишком часто.",
    "el": "Τα κάτω φύλλα κιτρινίζουν όταν λείπει άζωτο από το φυτό ή όταν ποτίζεται πολύ.",
    "hi": "नीचे की पत्तियाँ नाइट्रोजन की कमी या अधिक पानी से पीली हो जाती हैं।",
    "ar": "تصفر الأوراق السفلى عندما ينقص النيتروجين أو عند الإفراط في الري.",
    "zh": "缺氮或者浇水太多的时候，下面的叶子会先变黄。",
    "ja": "窒素が足りないときや水をやりすぎたときに、下の葉から黄色くなります。",
    "ko": "질소가 부족하거나 물을 너무 많이 주면 아래 잎부터 노랗게 변합니다.",
}
PAIRS = list(itertools.product(QUESTIONS, ANSWERS))


@pytest.mark.parametrize(("asked", "answered"), PAIRS, ids=str)
def test_answer_in_another_language_is_noticed_and_in_the_same_is_not(asked: str, answered: str) -> None:
    found = mismatch(QUESTIONS[asked], ANSWERS[answered])
    assert (found is None) == (asked == answered)


def test_mismatch_names_both() -> None:
    assert mismatch(QUESTIONS["de"], ANSWERS["en"]) == Mismatch("de", "en")
    assert mismatch(QUESTIONS["ru"], ANSWERS["en"]) == Mismatch("cyrillic", "latin")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("How do I say good morning in German?", ANSWERS["de"]),
        ("Translate this into Spanish, please: the leaves are yellow", ANSWERS["es"]),
        ("Wie heißt das auf Englisch: die Blätter sind gelb?", ANSWERS["en"]),
        ("把这句话翻译成英文：叶子变黄了。", ANSWERS["en"]),
        ("wet?", ANSWERS["de"]),
        (QUESTIONS["de"], "OK."),
        (QUESTIONS["en"], "Solanum lycopersicum, Phytophthora infestans, Alternaria solani."),
        (QUESTIONS["ru"], "```python\nfor leaf in leaves:\n    print(leaf.colour)\n```"),
        (QUESTIONS["ru"], "Азот (NPK 20-10-10)."),
        ("pH 7.9?", "7.9 is a little high."),
        (QUESTIONS["ja"], "窒素不足です。"),
        ('{"task": "plan", "vars": ["ha_wheat", "ha_peas"], "max": "margin", "st": ["labour < 80"]}', ANSWERS["en"]),
        ("", ""),
    ],
)
def test_no_opinion_rather_than_a_wrong_one(question: str, answer: str) -> None:
    assert mismatch(question, answer) is None
