"""The shop's pages as text, and where each click leads: all of it a pure function of where the customer is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from envs.webshop.products import Product

PER_PAGE = 10
SEPARATOR = " [SEP] "
BACK, PREVIOUS, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"
SUB_PAGES: Mapping[str, Callable[[Product], Sequence[str]]] = {
    "Description": lambda product: [product.description],
    "Features": lambda product: product.bullets,
    "Reviews": lambda product: product.reviews or ["No reviews"],
}


@dataclass(frozen=True, slots=True)
class View:
    """Where the customer is: on the search page, in a page of what was found, at a product, or reading more of it."""

    found: tuple[str, ...] = ()
    page: int = 0  # of what was found, from 1; 0 is the search page
    asin: str = ""
    chosen: Mapping[str, str] = field(default_factory=dict)  # by the option's name; forgotten when the product is left
    reading: str = ""  # one of SUB_PAGES
    is_bought: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """`clicks` has the view behind everything that can be clicked, by its text in lower case."""

    parts: tuple[str, ...]
    clicks: Mapping[str, View]

    @property
    def text(self) -> str:
        """What stands on it, and below that what can be clicked."""
        return SEPARATOR.join(self.parts) + (f"\n{self.clickable}" if self.clicks else "")

    @property
    def clickable(self) -> str:
        return f"Can be clicked: {json.dumps(list(self.clicks), ensure_ascii=False)}"


def label(text: str) -> str:
    """A click's text as it is compared: its case and its spaces do not matter."""
    return " ".join(text.lower().split())


def page(view: View, products: Mapping[str, Product]) -> Page:
    if view.is_bought:
        return Page(("Thank you for your purchase",), {})
    if not view.page:
        return Page(("Search page: there is a search bar",), {})
    if not view.asin:
        return _results(view, products)
    return _reading(view, products[view.asin]) if view.reading else _item(view, products[view.asin])


def _results(view: View, products: Mapping[str, Product]) -> Page:
    last = view.page * PER_PAGE
    turns = {PREVIOUS: view.page - 1} if view.page > 1 else {}
    turns |= {NEXT: view.page + 1} if last < len(view.found) else {}
    shown = [products[asin] for asin in view.found[last - PER_PAGE : last]]
    parts = [BACK, f"Page {view.page} (Total results: {len(view.found)})", *turns]
    for product in shown:
        parts += [product.asin, product.title, product.price_tag]
    clicks = {label(BACK): View()}
    clicks |= {label(name): replace(view, page=number) for name, number in turns.items()}
    clicks |= {label(product.asin): replace(view, asin=product.asin) for product in shown}
    return Page(tuple(parts), clicks)


def _item(view: View, product: Product) -> Page:
    parts = [BACK, PREVIOUS]
    clicks = {label(BACK): View(), label(PREVIOUS): replace(view, asin="", chosen={})}
    clicks |= {label(name): replace(view, reading=name) for name in SUB_PAGES}
    clicks[label(BUY)] = replace(view, is_bought=True)
    for name, values in product.options.items():
        parts += [name, *values]
        clicks |= {label(value): replace(view, chosen={**view.chosen, name: value}) for value in values}
    parts += [product.title, f"Price: {product.price_tag}", f"Rating: {product.rating}", *SUB_PAGES, BUY]
    if view.chosen:
        parts.append("Chosen: " + ", ".join(f"{name}: {value}" for name, value in view.chosen.items()))
    return Page(tuple(parts), clicks)


def _reading(view: View, product: Product) -> Page:
    clicks = {label(BACK): View(), label(PREVIOUS): replace(view, reading="")}
    return Page((BACK, PREVIOUS, *SUB_PAGES[view.reading](product)), clicks)
