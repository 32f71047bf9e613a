"""The shop's search: BM25 over what its pages say, the best 50."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import tantivy

from envs.webshop.products import Product

MAX_FOUND = 50
_HEAP_BYTES = 64_000_000


class Search:
    """An index in memory. Words are stemmed; what is searched for is words, and never the index's own query language."""

    def __init__(self, products: Sequence[Product]) -> None:
        fields = tantivy.SchemaBuilder()
        fields.add_text_field("text", tokenizer_name="en_stem", index_option="freq")
        fields.add_integer_field("number", stored=True)
        self._index = tantivy.Index(fields.build())
        writer = self._index.writer(_HEAP_BYTES, num_threads=1)  # one thread: the same index every time
        for number, product in enumerate(products):
            writer.add_document(tantivy.Document(text=_document(product), number=number))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()
        self._searcher = self._index.searcher()
        self._asins = [product.asin for product in products]

    def __call__(self, keywords: str) -> tuple[str, ...]:
        """The asins found, the best first; of equally good ones, the catalogue's first."""
        query, _ = self._index.parse_query_lenient(" ".join(words(keywords)), ["text"])
        hits = self._searcher.search(query, MAX_FOUND).hits
        scored = [(-cast(float, score), cast(int, self._searcher.doc(address)["number"][0])) for score, address in hits]
        return tuple(self._asins[number] for _, number in sorted(scored))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _document(product: Product) -> str:
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.bullets, options]).lower()
