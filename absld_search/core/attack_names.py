"""Attacks by name: what each is made of, the word its metrics carry, and which is stronger. The one list of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from absld_search.words import unknown


@dataclass(frozen=True)
class Named:
    """An attack of an evaluation: `stages` in turn, each on the images that are still right after those before it.

    An image that the model has wrong without an attack counts as lost under every one. `draws`: "image", random
    numbers are functions of the image, so outcomes are paired between models; "batch", as AutoAttack seeds them.
    `word`: in the names of its metrics; "" where no study stores it. `short` and `plain`, for those that a study
    stores: its name in a table's head, and in a sentence.
    """

    meaning: str
    stages: tuple[str, ...]
    word: str = ""
    draws: str = "image"
    short: str = ""
    plain: str = ""


AUTOATTACK = ("apgd-ce", "apgd-t", "fab-t", "square")
LOWEST = 4  # classes that apgd-lowest4 looks at again

# From the weakest to the strongest, as far as that is known beforehand; `strongest` goes by this order.
ATTACKS: dict[str, Named] = {
    "clean": Named("no attack", (), word="clean", short="clean", plain="no attack"),
    "transfer": Named("CW-PGD-20 against another network, its last iterates", ("transfer",)),
    "fgsm": Named("one step of the whole radius on the cross-entropy", ("fgsm",)),
    "pgd-trades": Named("20 steps of 0.003/0.031 of the radius on the cross-entropy", ("pgd-trades",)),
    "pgd20": Named(
        "20 steps of the workload's size on the cross-entropy",
        ("pgd20",),
        word="pgd20",
        short="PGD-20",
        plain="PGD-20",
    ),
    "pgd-sat": Named("20 steps of a quarter of the radius on the cross-entropy", ("pgd-sat",)),
    "pgd20-kl": Named("20 steps of the workload's size on the divergence from the clean answer", ("pgd20-kl",)),
    "pgd20-gaussian": Named("pgd20 from 0.001 N(0, 1) around the image", ("pgd20-gaussian",)),
    "pgd20-confused": Named("20 steps towards each of a class's 3 likeliest mistakes", ("pgd20-confused",)),
    "cw20": Named(
        "20 steps of the workload's size on the Carlini-Wagner margin (CW-inf)",
        ("cw20",),
        word="cw",
        short="CW",
        plain="CW-inf with 20 steps",
    ),
    "square": Named("5,000 random queries that see logits and no gradient", ("square",)),
    "apgd-ce": Named(
        "APGD on the cross-entropy, 100 steps", ("apgd-ce",), word="robust", short="robust", plain="APGD-CE"
    ),
    "apgd-lowest4": Named(
        "APGD on the cross-entropy, then APGD-T on the 4 classes that are lowest so far; for the worst class alone",
        ("apgd-ce", "apgd-t-lowest"),
        word="lowest4",
        short="APGD-CE+T lowest",
        plain="APGD-CE and APGD-T on the lowest classes",
    ),
    "apgd-top3": Named(
        "APGD on the cross-entropy, then on the targeted ratio towards the 3 likeliest wrong classes",
        ("apgd-ce", "apgd-t3"),
        word="top3",
        short="APGD-CE+T3",
        plain="APGD-CE, then APGD-T towards the 3 likeliest wrong classes",
    ),
    "apgd-adaptive": Named(
        "APGD on the cross-entropy, then restarts that learn from one another, on those that are left",
        ("apgd-ce", "adaptive"),
    ),
    "fab-t": Named("FAB towards 9 classes, 100 steps each", ("fab-t",)),
    "apgd-t": Named("APGD on the targeted ratio towards 9 classes, 100 steps each", ("apgd-t",)),
    "apgd": Named(
        "APGD on the cross-entropy, then APGD-T: AutoAttack's first two stages",
        AUTOATTACK[:2],
        word="apgd",
        short="APGD-CE+T",
        plain="AutoAttack's first two stages (APGD-CE, APGD-T)",
    ),
    "aa": Named(
        "AutoAttack, standard version: APGD-CE, APGD-T, FAB-T, Square",
        AUTOATTACK,
        word="aa",
        draws="batch",
        short="AutoAttack",
        plain="AutoAttack (APGD-CE, APGD-T, FAB-T, Square)",
    ),
}
KINDS: dict[str, str] = {name: attack.word for name, attack in ATTACKS.items() if attack.word}
"""Attack -> the word in its metrics' names. `robust` is APGD-CE, the attack of the search."""
STRENGTH: tuple[str, ...] = tuple(name for name in ATTACKS if name not in ("apgd-lowest4", "transfer"))
"""Weakest first. apgd-lowest4 treats classes unequally, transfer depends on another network: both stand outside."""
BY_WORD: dict[str, Named] = {attack.word: attack for attack in ATTACKS.values() if attack.word}
SEARCH_ATTACKS = ("clean", "apgd-ce")  # what search looks at; more only on test


def canonical(name: str) -> str:
    """An attack's name, given that or its metrics' word: "cw" -> "cw20". Raises: UsageError with the nearest."""
    by_word = {word: attack for attack, word in KINDS.items()}
    if name not in ATTACKS and name not in by_word:
        raise unknown("attack", name, [*ATTACKS, *by_word])
    return name if name in ATTACKS else by_word[name]


def strongest(names: Collection[str]) -> str:
    """The strongest of the stored attacks, by `STRENGTH`; "clean" where there is none."""
    return max((name for name in names if name in STRENGTH), key=STRENGTH.index, default="clean")


def of_test(dataset: str, device: str) -> tuple[str, ...]:
    """What a confirm training is measured with on test, weakest first.

    AutoAttack where a GPU makes it affordable and the data set has images worth it. On a CPU its first two stages for
    digits, and their cheaper form, three targets instead of nine, for larger images. How little the rest finds after
    them on digits, `benchmarks/proxies.py` measures.
    """
    if dataset == "digits":
        last: tuple[str, ...] = ("apgd",)
    else:
        last = ("apgd", "aa") if device.startswith("cuda") else ("apgd-top3",)
    return ("clean", "pgd20", "cw20", "apgd-ce", *last)
