"""What the invented worlds are made of: domains, what can be asked of the things in them, and how things are called."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

# domain -> kind of thing -> what can be asked of it -> the kind of the answer
PERSON = {"birthplace": "city", "birth year": "year", "favourite colour": "colour"}
CITY = {"country": "country", "number of inhabitants": "count", "mayor": "person", "altitude": "metres"}
DOMAINS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "theatre": {
        "play": {"author": "person", "year of the premiere": "year", "venue": "theatre"},
        "theatre": {"city": "city", "number of seats": "count", "director": "person"},
        "person": PERSON, "city": CITY,
    },
    "rivers": {
        "river": {"length": "kilometres", "source": "mountain", "city at the mouth": "city"},
        "mountain": {"height": "metres", "country": "country", "first climber": "person"},
        "person": PERSON, "city": CITY,
    },
    "music": {
        "song": {"singer": "person", "year of release": "year", "duration": "minutes", "album": "album"},
        "album": {"record label": "company", "number of tracks": "small", "producer": "person"},
        "company": {"seat": "city", "founder": "person"},
        "person": PERSON, "city": CITY,
    },
    "books": {
        "book": {"author": "person", "number of pages": "count", "publisher": "company", "language": "language"},
        "company": {"seat": "city", "founding year": "year", "owner": "person"},
        "person": PERSON, "city": CITY,
    },
    "art": {
        "painting": {"painter": "person", "museum": "museum", "year of completion": "year", "width": "metres"},
        "museum": {"city": "city", "opening time": "time", "curator": "person"},
        "person": PERSON, "city": CITY,
    },
    "trade": {
        "product": {"maker": "company", "price": "price", "material": "material"},
        "company": {"founder": "person", "seat": "city", "number of employees": "count"},
        "person": PERSON, "city": CITY,
    },
    "railways": {
        "train": {"destination": "station", "departure time": "time", "driver": "person", "number of wagons": "small"},
        "station": {"city": "city", "number of platforms": "small", "opening year": "year"},
        "person": PERSON, "city": CITY,
    },
    "astronomy": {
        "moon": {"planet": "planet", "discoverer": "person", "diameter": "kilometres"},
        "planet": {"star": "star", "length of the year": "days", "colour": "colour"},
        "star": {"distance": "light years", "constellation": "constellation"},
        "person": PERSON,
    },
    "sport": {
        "team": {"stadium": "stadium", "coach": "person", "founding year": "year", "colour": "colour"},
        "stadium": {"city": "city", "number of seats": "count", "architect": "person"},
        "person": PERSON, "city": CITY,
    },
    "ships": {
        "ship": {"captain": "person", "home port": "city", "length": "metres", "year of launch": "year", "shipyard": "company"},
        "company": {"seat": "city", "owner": "person", "number of docks": "small"},
        "person": PERSON, "city": CITY,
    },
    "gardens": {
        "plant": {"garden": "garden", "colour of the flowers": "colour", "month of flowering": "month", "height": "centimetres"},
        "garden": {"city": "city", "gardener": "person", "number of beds": "small"},
        "person": PERSON, "city": CITY,
    },
    "cuisine": {
        "dish": {"cook": "person", "restaurant": "restaurant", "cooking time": "minutes", "price": "price"},
        "restaurant": {"city": "city", "number of tables": "small", "closing time": "time"},
        "person": PERSON, "city": CITY,
    },
    "minerals": {
        "mineral": {"mine": "mine", "hardness": "small", "colour": "colour", "discoverer": "person"},
        "mine": {"country": "country", "depth": "metres", "owner": "company"},
        "company": {"seat": "city", "founding year": "year"},
        "person": PERSON, "city": CITY,
    },
    "schools": {
        "course": {"teacher": "person", "school": "school", "room": "room", "starting time": "time"},
        "school": {"head": "person", "city": "city", "number of pupils": "count"},
        "person": PERSON, "city": CITY,
    },
    "buildings": {
        "bridge": {"river": "river", "length": "metres", "engineer": "person", "opening year": "year"},
        "river": {"source": "mountain", "length": "kilometres"},
        "mountain": {"height": "metres", "country": "country"},
        "person": PERSON,
    },
    "weather": {
        "weather station": {"city": "city", "altitude": "metres", "warden": "person", "record temperature": "degrees"},
        "city": CITY, "person": PERSON,
    },
}  # fmt: skip
NUMBERS = {  # from, to, unit
    "year": (1512, 2019, ""), "count": (112, 9899, ""), "small": (3, 98, ""), "metres": (101, 4988, "m"),
    "kilometres": (102, 6990, "km"), "centimetres": (11, 299, "cm"), "minutes": (11, 179, "min"), "days": (31, 990, "days"),
    "price": (12, 989, "crowns"), "degrees": (11, 49, "degrees"), "light years": (13, 997, "light years"), "room": (101, 699, ""),
}  # fmt: skip
CHOICES = {
    "colour": "red green blue yellow white black orange violet silver brown pink grey".split(),
    "language": "Finnish Greek Hindi Korean Latin Malay Norse Persian Tamil Welsh Basque Czech".split(),
    "month": "January February March April May June July August September October November December".split(),
    "material": "oak glass steel copper wool leather marble clay cotton silver bamboo brass".split(),
}  # fmt: skip
FACTORS = {
    "metres": ("cm", 100),
    "kilometres": ("m", 1000),
    "minutes": ("s", 60),
    "days": ("hours", 24),
    "centimetres": ("mm", 10),
}
TITLED = ("play", "song", "album", "book", "painting", "course")  # kinds that are called "The Silent Harbour"
STARTS = (
    "Ba Be Bo Da De Do Fa Fe Ga Go Ha He Ja Jo Ka Ke Ko La Le Lo Ma Me Mi Na Ne No Pa Pe Ra Re Ro Sa Se So Ta Te To Va Ve".split()
)
MIDDLES = (
    "lan len lin lor mar men mir nar nel nor ral ren rin ron sal sen sil tan tel tor vel ven vor dal den dor gan gel".split()
)
ENDS = {
    "city": "ton burg ford stad wick haven".split(), "country": "ia land mark stan".split(), "person": "a o e is us in".split(),
    "company": "co tec works".split(), "": "a o um is on ax".split(),
}  # fmt: skip
ADJECTIVES = (
    "Silent Golden Broken Distant Hidden Crimson Frozen Gentle Hollow Iron Lonely Painted Quiet Restless Secret Winter".split()
)
NOUNS = "Harbour Mirror Garden Tower Candle Bridge Forest Lantern River Crown Shadow Letter Window Island Orchard Clock".split()


@dataclass(frozen=True, slots=True)
class Relation:
    """What can be asked of a kind of thing: `name` of the `subject`, which is a `value`."""

    subject: str
    name: str
    value: str

    @property
    def is_thing(self) -> bool:
        """Whether more can be asked of the answer."""
        return self.value not in NUMBERS and self.value not in CHOICES and self.value != "time"


def relations(domain: str) -> tuple[Relation, ...]:
    return tuple(Relation(kind, name, value) for kind, asked in DOMAINS[domain].items() for name, value in asked.items())


def drawn(rng: random.Random, kind: str, count: int) -> list[str | int]:
    """As many different values of a kind, names of things included."""
    if kind in NUMBERS:
        low, high, _ = NUMBERS[kind]
        return list(rng.sample(range(low, high), count))
    if kind in CHOICES:
        return list(rng.sample(CHOICES[kind], count))
    found: dict[str, None] = {}
    while len(found) < count:
        found[_name(rng, kind)] = None
    return list(found)


def _name(rng: random.Random, kind: str) -> str:
    if kind == "time":
        return f"{rng.randrange(6, 23):02}:{rng.randrange(1, 60):02}"
    if kind in TITLED:
        return f"The {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    if kind == "train":
        return f"R{rng.randrange(100, 999)}"
    first = rng.choice(STARTS) + rng.choice(MIDDLES)
    if kind == "person":
        return f"{first}{rng.choice(ENDS['person'])} {rng.choice(STARTS)}{rng.choice(MIDDLES)}"
    return first + rng.choice(ENDS.get(kind, ENDS[""]))
