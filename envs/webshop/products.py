"""A catalogue: WebShop's product files, read from a folder and cleaned as WebShop cleans them."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from envs.once import Once
from envs.types import Json

SHIPPED = Path(__file__).parent / "catalogue.json"  # products and instructions of our own making, in one file
PRODUCTS = ("products_1000.json", "items_shuffle_1000.json", "items_shuffle.json")  # the first that is there
INSTRUCTIONS = ("instructions_1000.json", "items_ins_v2_1000.json", "items_ins_v2.json")
HUMAN = "items_human_ins.json"
USUAL = {  # SHA-256 of the usual 1,000 products and their instructions
    "products_1000.json": "6c07ceaa58083dd9f78abb504c9552eb95a7b450d74e7fda9a6dc242d1907ed2",
    "instructions_1000.json": "f88a36314a397b53b3d9c3fa5878e5f7b26d35019a51ec83fbedeca61a948f6f",
}
REMEDY = "docs/webshop.md says where to get the data and what its form is"
MAX_ASIN = 10  # longer ones are no products
DEFAULT_PRICE = 100.0


@dataclass(frozen=True, slots=True)
class Instruction:
    """What somebody wants. A synthetic one has no options: each combination that the product has makes a goal of it."""

    text: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What the instructions' file has of a product."""

    attributes: tuple[str, ...] = ()
    synthetic: Instruction | None = None


@dataclass(frozen=True, slots=True)
class Product:
    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    query: str  # what it was found by
    product_category: str  # from wide to narrow, with a "›" between
    options: Mapping[str, tuple[str, ...]]
    attributes: tuple[str, ...]
    prices: tuple[float, ...]  # one, or the lowest and the highest
    rating: str
    reviews: tuple[str, ...]
    synthetic: Instruction | None
    human: tuple[Instruction, ...]

    @property
    def price_tag(self) -> str:
        return " to ".join(f"${price}" for price in self.prices)

    @property
    def price(self) -> float:
        """What it costs: where a range is shown, a price in it, always the same."""
        return self.prices[0] if len(self.prices) == 1 else random.Random(f"{self.asin}/price").uniform(*self.prices)

    @property
    def texts(self) -> tuple[str, str, str]:
        """Where an attribute may stand that is not listed as one."""
        return self.title.lower(), " ".join(self.bullets).lower(), self.description.lower()


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`about` says which products these are."""

    products: Mapping[str, Product]
    about: str


@Once
def catalogue(folder: str) -> Catalogue:
    """The products in that folder; our own where it is "". Raises ValueError with the file, what is wrong and the remedy."""
    if not folder:
        both = _object(SHIPPED, _read(SHIPPED))
        products = _products(SHIPPED, both["products"], told=_all_told(SHIPPED, both["instructions"]), human={})
        return Catalogue(products, f"{len(products)} invented products")
    path, instructions, human = _first(folder, PRODUCTS), _first(folder, INSTRUCTIONS), Path(folder) / HUMAN
    digests = [f"{one.name} {_digest(one)[:12]}" for one in (path, instructions, human) if one.is_file()]
    people = _people(human, _read(human)) if human.is_file() else {}
    products = _products(path, _read(path), told=_all_told(instructions, _read(instructions)), human=people)
    return Catalogue(products, f"{len(products)} products in {folder} (SHA-256 {', '.join(digests)})")


def _digest(path: Path) -> str:
    """The file's SHA-256; ValueError where its name says that it is the usual one and it is not."""
    found, usual = hashlib.sha256(path.read_bytes()).hexdigest(), USUAL.get(path.name)
    if usual and found != usual:
        other = path.name.replace("products", "items_shuffle").replace("instructions", "items_ins_v2")
        raise ValueError(
            f"{path}: its SHA-256 is {found}, that of the usual file {usual}: it was changed or cut; get it again, or call it "
            f"{other} where it is meant to differ"
        )
    return found


def _first(folder: str, names: Sequence[str]) -> Path:
    for name in names:
        if (path := Path(folder) / name).is_file():
            return path
    raise ValueError(f"{folder}: there is no {' or '.join(names)}; {REMEDY}")


def _read(path: Path) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON, or cut off ({error}); get the file again: {REMEDY}") from error


def _object(path: Path, value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise ValueError(f"{path}: it holds no JSON object; {REMEDY}")
    return value


def _all_told(path: Path, raw: Json) -> dict[str, Told]:
    """By asin."""
    found: dict[str, Told] = {}
    for asin, one in _object(path, raw).items():
        try:
            fields = cast(dict[str, Json], _kind(one, dict, "it"))
            found[asin] = Told(_texts(fields, "attributes"), _synthetic(fields))
        except ValueError as error:
            raise ValueError(f"{path}, {asin}: {error}; {REMEDY}") from error
    return found


def _people(path: Path, raw: Json) -> dict[str, tuple[Instruction, ...]]:
    """By asin."""
    found: dict[str, tuple[Instruction, ...]] = {}
    for asin, one in _object(path, raw).items():
        try:
            found[asin] = _asked(one)
        except ValueError as error:
            raise ValueError(f"{path}, {asin}: {error}; {REMEDY}") from error
    return found


def _products(
    path: Path, raw: Json, *, told: Mapping[str, Told], human: Mapping[str, tuple[Instruction, ...]]
) -> dict[str, Product]:
    """The first of each asin, in the file's order."""
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{path}: it holds no list of products; {REMEDY}")
    products: dict[str, Product] = {}
    for number, one in enumerate(raw, start=1):
        try:
            fields = cast(dict[str, Json], _kind(one, dict, "it"))
            asin = _text(fields, "asin")
            if asin != "nan" and len(asin) <= MAX_ASIN and asin not in products:
                people = human[asin] if asin in human else _asked(fields.get("instructions", []))
                products[asin] = _product(fields, told.get(asin, Told()), people=people)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}, product {number}: {error}; {REMEDY}") from error
    return products


def _product(fields: Mapping[str, Json], told: Told, *, people: tuple[Instruction, ...]) -> Product:
    bullets = fields.get("small_description") or []
    return Product(
        asin=_text(fields, "asin"),
        title=_text(fields, "name"),
        description=str(fields.get("full_description") or ""),
        bullets=tuple(map(str, bullets)) if isinstance(bullets, list) else (str(bullets),),
        query=_text(fields, "query").lower().strip(),
        product_category=_text(fields, "product_category"),
        options=_options(fields.get("customization_options") or {}),
        attributes=told.attributes,
        prices=_prices(fields),
        rating=str(fields.get("Rating", "N.A.")),
        reviews=tuple(map(_review, cast(list[Json], _kind(fields.get("Reviews", []), list, "'Reviews'")))),
        synthetic=told.synthetic,
        human=people,
    )


def _prices(fields: Mapping[str, Json]) -> tuple[float, ...]:
    """From "$19.99$27.99", or from the list that a cleaned file has of it; an empty one means $100."""
    if "pricing" not in fields:
        raise ValueError("'pricing' is missing")
    match fields["pricing"]:
        case None | "" | []:
            return (DEFAULT_PRICE,)
        case str(text) if found := re.findall(r"\$\s*(\d[\d,]*\.?\d*)", text):
            return tuple(float(number.replace(",", "")) for number in found[:2])
        case [*numbers] if all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
            return tuple(map(float, cast(list[float], numbers[:2])))
        case other:
            raise ValueError(f"'pricing' is {str(other)[:50]!r}, which is no price")


def _options(raw: Json) -> dict[str, tuple[str, ...]]:
    options: dict[str, tuple[str, ...]] = {}
    for name, values in cast(dict[str, Json], _kind(raw, dict, "'customization_options'")).items():
        if values is not None:
            each = [cast(dict[str, Json], _kind(one, dict, "an option")) for one in cast(list[Json], _kind(values, list, name))]
            options[name.lower()] = tuple(_text(one, "value").strip().replace("/", " | ").lower() for one in each)
    return options


def _synthetic(told: Mapping[str, Json]) -> Instruction | None:
    text, attributes = told.get("instruction"), _texts(told, "instruction_attributes")
    return Instruction(text, attributes) if isinstance(text, str) and attributes else None


def _asked(raw: Json) -> tuple[Instruction, ...]:
    """What people asked for."""
    each = [cast(dict[str, Json], _kind(one, dict, "an instruction")) for one in cast(list[Json], _kind(raw, list, "its list"))]
    return tuple(
        Instruction(
            _text(one, "instruction").strip("."), _texts(one, "instruction_attributes"), _texts(one, "instruction_options")
        )
        for one in each
    )


def _review(raw: Json) -> str:
    """Title, stars and text, under the names of either of the forms that files have."""
    review = cast(dict[str, Json], _kind(raw, dict, "a review"))
    stars, body = review.get("score", review.get("stars", "")), review.get("body", review.get("review", ""))
    return f'"{review.get("title", "")}" {stars} {body}'.strip()


def _text(fields: Mapping[str, Json], key: str) -> str:
    return str(_kind(fields.get(key), str, f"{key!r}"))


def _texts(fields: Mapping[str, Json], key: str) -> tuple[str, ...]:
    """A list of texts; none where it is not there or empty."""
    found = cast(list[Json], _kind(fields.get(key) or [], list, f"{key!r}"))
    return tuple(str(_kind(one, str, f"one of {key!r}")) for one in found)


def _kind(value: Json, kind: type, what: str) -> Json:
    if not isinstance(value, kind):
        words = {dict: "object", list: "list", str: "text"}
        raise ValueError(f"{what} is missing" if value is None else f"{what} is {str(value)[:50]!r}, which is no {words[kind]}")
    return value
