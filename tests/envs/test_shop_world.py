from hypothesis import given
from hypothesis import strategies as st

from envs.shop.world import ERRORS, EXAMPLE_IDS, NAMES, NOVEL_NAMES, NUM_ITEMS, Item, World
from envs.types import Json, ToolCall

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**4000)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
tools = st.sampled_from(["find", "price", "stock", "add", "remove", "checkout"]) | st.text(max_size=8)
keys = st.sampled_from(["name", "id", "quantity"]) | st.text(max_size=4)


def world() -> World:
    return World("a seed", novel=False)


def first(shop: World) -> Item:
    return next(iter(shop.items.values()))


def error(shop: World, tool: str, **arguments: Json) -> str:
    return shop.run(ToolCall(tool, arguments)).error


def result(shop: World, tool: str, **arguments: Json) -> Json:
    outcome = shop.run(ToolCall(tool, arguments))
    assert not outcome.error
    return outcome.result


def test_the_same_seed_gives_the_same_catalogue():
    assert world().items == world().items
    assert world().items != World("another seed", novel=False).items


def test_novel_worlds_hold_names_that_others_never_do():
    assert not set(NAMES) & set(NOVEL_NAMES)
    names = {item.name for item in World("x", novel=True).items.values()}
    assert len(names) == NUM_ITEMS and len(names & set(NOVEL_NAMES)) == NUM_ITEMS // 2


def test_no_world_holds_the_ids_of_the_worked_examples():
    assert not any(id in World(str(seed), novel=False).items for seed in range(200) for id in EXAMPLE_IDS)


def test_a_purchase_from_name_to_order():
    shop = world()
    item = first(shop)
    assert result(shop, "find", name=item.name) == {"id": item.id}
    assert result(shop, "price", id=item.id) == {"price": item.price}
    assert result(shop, "stock", id=item.id) == {"stock": item.stock}
    assert result(shop, "add", id=item.id, quantity=2) == {"cart": {item.id: 2}}
    assert result(shop, "add", id=item.id, quantity=1) == {"cart": {item.id: 3}}
    assert result(shop, "remove", id=item.id, quantity=1) == {"cart": {item.id: 2}}
    stock = item.stock
    assert result(shop, "checkout") == {"total": 2 * item.price}
    assert shop.state() == {"cart": {}, "orders": [{"cart": {item.id: 2}, "total": 2 * item.price}]}
    assert result(shop, "stock", id=item.id) == {"stock": stock - 2}


def test_remove_without_a_quantity_takes_all():
    shop = world()
    item = first(shop)
    result(shop, "add", id=item.id, quantity=3)
    assert result(shop, "remove", id=item.id) == {"cart": {}}


def test_a_snapshot_is_not_changed_by_later_calls():
    shop = world()
    before = shop.state()
    result(shop, "add", id=first(shop).id, quantity=1)
    assert before == {"cart": {}, "orders": []}


def test_each_refusal_has_its_code_and_changes_nothing():
    shop = world()
    item = first(shop)
    assert error(shop, "fly") == "unknown tool"
    assert error(shop, "find", name="unicorn") == "not found"
    assert error(shop, "find", name=next(iter(shop.items))) == "bad name"
    assert error(shop, "price", id="i1") == "bad id"
    assert error(shop, "price", id=item.name) == "bad id"
    assert error(shop, "remove", id="i1") == "bad id"
    assert error(shop, "add", id=item.id, quantity=0) == "bad quantity"
    assert error(shop, "add", id=item.id, quantity=item.stock + 1) == "out of stock"
    assert error(shop, "add", id=item.id, quantity=10**5000) == "out of stock"
    assert error(shop, "checkout") == "empty cart"
    assert error(shop, "remove", id=item.id) == "not in cart"
    assert shop.state() == world().state()
    result(shop, "add", id=item.id, quantity=2)
    assert error(shop, "remove", id=item.id, quantity=3) == "bad quantity"
    assert error(shop, "remove", id=item.id, quantity=-1) == "bad quantity"
    assert error(shop, "add", id=item.id, quantity=item.stock) == "out of stock"


def test_arguments_of_the_wrong_kind_missing_or_extra_are_bad():
    shop = world()
    id = first(shop).id
    assert error(shop, "find") == "bad arguments"
    assert error(shop, "find", name=3) == "bad arguments"
    assert error(shop, "price", id=id, now=1) == "bad arguments"
    assert error(shop, "add", id=id) == "bad arguments"
    assert error(shop, "checkout", id=id) == "bad arguments"
    for quantity in (True, "2", 2.0, None, [2]):
        assert error(shop, "add", id=id, quantity=quantity) == "bad arguments"
        assert error(shop, "remove", id=id, quantity=quantity) == "bad arguments"


@given(st.lists(st.tuples(tools, st.dictionaries(keys, values, max_size=3)), max_size=6))
def test_arbitrary_calls_never_raise(calls: list[tuple[str, dict[str, Json]]]):
    shop = world()
    for name, arguments in calls:
        outcome = shop.run(ToolCall(name, arguments))
        assert outcome.error == "" or outcome.error in ERRORS
        assert (outcome.result is None) == bool(outcome.error)
