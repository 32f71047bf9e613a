"""WebShop: its pages, its goals, and its reward against purchases that the original's own function scored."""

import argparse
import json
import math
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import score_command
from envs.environment import environment
from envs.types import Json, Message, Stop, Task, ToolCall, Trajectory, Turn
from envs.webshop import reward
from envs.webshop.goals import goals, split_sizes
from envs.webshop.pages import SUB_PAGES, Page, View, page
from envs.webshop.products import REMEDY, catalogue
from envs.webshop.purchases import is_equal, rescored
from envs.webshop.reward import Purchase, all_words, colour, is_same, model, score
from envs.webshop.tasks import engine
from envs.webshop.webshop import MAX_MESSAGES, WebShop
from rewards.points import points
from rewards.score import score_file, score_line
from rewards.user_turns import verdict

SPLITS = ("test", "validation", "train")
DATA = Path(os.environ.get("TILTYARD_DATA", "no such folder")) / "webshop"
with_data = pytest.mark.skipif(not DATA.is_dir(), reason="TILTYARD_DATA names no folder with WebShop's products in webshop/")
with_model = pytest.mark.skipif(not model(), reason="spaCy's small English model is not installed")


def say(name: str, **arguments: Json) -> Message:
    return Message("assistant", "", (ToolCall(name, arguments),))


def click(element: str) -> Message:
    return say("click", element=element)


def every(name: str) -> list[Task]:
    entry = environment(name)
    return [task for level in entry.levels for split in SPLITS for task in entry.taskset(split, level)]


@cache
def real() -> tuple[Task, ...]:
    return tuple(every(f"webshop:{DATA}"))


def played(task: Task, messages: list[Message]) -> Trajectory:
    env, turns, done = WebShop(), list[Turn](), False
    env.reset(task)
    for message in messages:
        if not done:
            turns.append(Turn((), (), (), (), message, env.step(message)))
            done = turns[-1].observation.done
    env.close()
    return Trajectory("t", task.id, tuple(turns), Stop.DONE if done else Stop.MAX_TURNS)


def told(trajectory: Trajectory) -> str:
    """What the policy read last."""
    return trajectory.turns[-1].observation.messages[-1].content


def recorded() -> list[dict]:
    return [json.loads(line) for line in (DATA / "rewards_200.jsonl").read_text().split("\n") if line.strip()]


# The reward


@with_data
@with_model
@pytest.mark.parametrize("name", ["webshop", f"webshop:{DATA}"])
def test_recorded_purchases_are_scored_as_the_original_scored_them(name: str):
    found = list(score_file(name, str(DATA / "rewards_200.jsonl")))
    assert len(found) == 200 and all(line["equal"] is True for line in found)
    for ours, theirs in zip(found, recorded(), strict=True):
        assert ours["asin"] == theirs["asin"] and math.isclose(ours["reward"], theirs["reward"], abs_tol=1e-9)
        assert list(ours["parts"]) == list(theirs["parts"])
        for key, value in theirs["parts"].items():
            assert type(ours["parts"][key]) is type(value) and math.isclose(ours["parts"][key], value, abs_tol=1e-9)


@with_data
@with_model
def test_a_changed_record_is_told_and_exits_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    first, second, third = recorded()[:3]
    first["reward"] += 1e-6
    second["parts"]["r_att"] = 0.123
    del third["reward"], third["parts"]
    third["note"] = "one line\u2028all the same"
    file = tmp_path / "purchases.jsonl"
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in (first, second, third)))
    assert score_command.main(argparse.Namespace(env=f"webshop:{DATA}", file=str(file))) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.strip().split("\n")]
    assert [line.get("equal") for line in printed] == [False, False, None]
    assert score_command.main(argparse.Namespace(env="webshop", file=str(file))) == 2  # whose products are others
    assert "webshop:FOLDER" in capsys.readouterr().err


@with_data
def test_without_the_model_nearly_all_rewards_stay_the_same():
    lines, shop = recorded(), catalogue(str(DATA))
    same = [abs(rescored(line, shop, nouns=all_words).reward - line["reward"]) < 1e-9 for line in lines]
    print(f"{sum(same)} of {len(same)}")
    assert len(same) == 200 and sum(same) >= 198  # 199 as measured


def test_the_substitute_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(reward, "spacy", None)
    reward.model.cache_clear()
    reward.title_nouns.forget()
    try:
        task = environment("webshop").taskset("test", "synthetic")[0]
        for _ in range(2):
            assert verdict(task, played(task, list(environment("webshop").oracle(task)))) == ""
        assert reward.model() == "" and reward.title_nouns() is all_words
        assert len(caplog.records) == 1 and "spaCy" in caplog.text
    finally:
        reward.model.cache_clear()
        reward.title_nouns.forget()


def test_all_words_are_those_that_could_be_nouns():
    assert all_words("A Lamp for the Desk, 2-in-1 (Black)") == ("lamp", "desk", "black")


def test_colours_and_options_are_compared_as_published():
    assert colour("black forest") == "black" and colour("violet lavender") == "lavender"
    assert colour("steelivy fuchsia") == "fuchsia" and colour("medium") == "medium"
    assert colour(("color", "grey")) == "grey" and colour(("color", "light grey")) == ("color", "light grey")
    assert is_same(("color", "light grey"), "light") and not is_same(("color", "blackened bronze"), "black")


def test_reward_by_hand():
    goal = goals("", "synthetic")["TFA0201X7/0"]  # men's sandals: rubber sole, ankle strap; brown, 10
    assert goal.attributes == ("rubber sole", "ankle strap") and goal.options == (("color", "brown"), ("size", "8"))
    products = catalogue("").products
    right, other, lamp = (products[asin] for asin in ("TFA0201X7", "TFA0202X0", "TEL1001X3"))
    full = score(goal, Purchase(right, {"color": "brown", "size": "8"}, 34.95), nouns=all_words)
    assert full.reward == 1.0 and full.parts["w_option"] == 0.4
    dear = score(goal, Purchase(right, {"color": "brown"}, goal.price_upper + 1), nouns=all_words)
    assert dear.reward == pytest.approx(3 / 5) and dear.parts["r_price"] is False and dear.parts["r_option"] == 0.5
    kin = score(goal, Purchase(other, {"color": "black", "size": "8"}, 10.0), nouns=all_words)
    assert kin.parts["r_type"] == 1.0 and kin.parts["r_att"] == 0.0 and kin.reward == pytest.approx(2 / 5)
    assert score(goal, Purchase(lamp, {}, 10.0), nouns=all_words).reward == 0.0


# Goals and splits


def test_the_splits_share_no_task_and_small_catalogues_scale():
    assert split_sizes(6910) == (500, 1000) and split_sizes(12087) == (500, 1000) and split_sizes(239) == (19, 39)
    tasks = every("webshop")
    assert len(tasks) == len({task.id for task in tasks}) == 239
    with pytest.raises(ValueError, match="human"):
        environment("webshop").taskset("test", "human")
    with pytest.raises(ValueError, match="dev"):
        environment("webshop").taskset("dev", "synthetic")


@with_data
def test_the_usual_products_make_the_usual_goals():
    entry = environment(f"webshop:{DATA}")
    assert "1000 products" in str(entry.ready())
    assert [len(entry.taskset(split, "synthetic")) for split in SPLITS] == [500, 1000, 5410]
    assert len({task.id for task in real()}) == 6910 + 13
    wanted = goals(str(DATA), "synthetic").values()
    products = catalogue(str(DATA)).products
    assert all(goal.price_upper > products[goal.asin].price for goal in wanted)
    assert all(goal.price_upper <= 990 or goal.price_upper == 1_000_000 for goal in wanted)


@with_data
def test_458_goals_cannot_be_bought_with_the_full_score_as_published():
    """An option whose colour is not its whole name is bought under another name than it is wanted under."""
    assert sum(not is_reachable(goal.options) for goal in goals(str(DATA), "synthetic").values()) == 458


def is_reachable(options: tuple) -> bool:
    bought = [colour(value) for _, value in options]
    return all(any(is_same(one, colour(wanted)) for one in bought) for wanted in options)


def test_the_oracle_solves_every_shipped_task():
    oracle = environment("webshop").oracle
    for task in every("webshop"):
        trajectory = played(task, list(oracle(task)))
        assert trajectory.stop is Stop.DONE and verdict(task, trajectory) == "" and points(task, trajectory).value == 1.0
        assert not any(outcome.error for turn in trajectory.turns for outcome in turn.observation.signals.outcomes)


def test_other_options_of_a_shipped_product_are_worth_less():
    products = catalogue("").products
    for goal in goals("", "synthetic").values():
        product = products[goal.asin]
        for name, value in goal.options:
            for other in set(product.options[name]) - {value}:
                assert score(goal, Purchase(product, {**dict(goal.options), name: other}, 1.0), nouns=all_words).reward < 1.0


@with_data
def test_the_oracle_solves_what_can_be_solved_of_the_real_goals():
    solvable = goals(str(DATA), "synthetic")
    human = [task for task in real() if task.level == "human"]
    tasks = random.Random(0).sample([task for task in real() if task.level == "synthetic"], 400) + human
    solved = {task.id: verdict(task, played(task, list(environment(task.env).oracle(task)))) == "" for task in tasks}
    for task in tasks:
        assert solved[task.id] == (task.level == "human" or is_reachable(solvable[str(task.payload["goal"])].options)), task.id
    assert sum(solved.values()) / len(solved) > 0.9


@with_data
def test_a_search_finds_what_is_wanted_among_its_50():
    products = [product for product in catalogue(str(DATA)).products.values() if product.synthetic]
    find = engine(str(DATA))
    titles = sum(product.asin in find(product.title) for product in products)
    texts = sum(product.asin in find(product.synthetic.text) for product in products if product.synthetic)
    print(f"of {len(products)}: {titles} by title, {texts} by instruction")
    assert len(products) == 415 and titles >= 413 and texts >= 411  # all of them, as measured
    wanted = random.Random(0).sample(list(goals(str(DATA), "synthetic").values()), 500)
    assert sum(goal.asin in find(goal.text) for goal in wanted) >= 495


def test_a_random_agent_earns_little():
    """It searches for random words of titles and clicks at random, 15 messages long."""
    rng, tasks = random.Random(0), every("webshop")
    titles = [product.title for product in catalogue("").products.values()]
    found = []
    for task in rng.sample(tasks, 100):
        env, observation, clicks = WebShop(), None, ["search"]
        env.reset(task)
        for _ in range(15):
            element = rng.choice(clicks)
            message = say("search", keywords=rng.choice(titles)) if element == "search" else click(element)
            observation = env.step(message)
            if observation.done:
                break
            clicks = clickable(observation.messages[-1].content) or ["search"]
        state = observation.signals.state if observation else None
        found.append(state["score"] if isinstance(state, dict) else 0.0)
    print(f"mean {sum(found) / len(found):.3f}")
    assert sum(found) / len(found) < 0.15


def clickable(text: str) -> list[str]:
    _, _, listed = text.partition("Can be clicked: ")
    return json.loads(listed) if listed else []


# Pages


def shown(view: View, folder: str = "") -> Page:
    return page(view, catalogue(folder).products)


def test_the_pages_of_one_visit():
    task = next(task for task in every("webshop") if task.id == "webshop/TFA0101X0/0")  # the long raincoat, navy and small
    visit = played(task, [say("search", keywords="women's long raincoat with hood and deep pockets"), click("TFA0101X0")])
    results, item = (turn.observation.messages[0].content for turn in visit.turns)
    first, listed = results.split("\n")
    assert first.startswith("Back to Search [SEP] Page 1 (Total results: ")
    assert "TFA0101X0 [SEP] Vellmora Women's Long Raincoat with Hood and Deep Pockets [SEP] $48.5 to $61.0" in first
    assert clickable(listed)[:2] == ["back to search", "next >"] and len(clickable(listed)) == 12
    assert item == (
        "Back to Search [SEP] < Prev [SEP] color [SEP] navy [SEP] yellow [SEP] olive [SEP] size [SEP] small [SEP] medium [SEP] "
        "large [SEP] Vellmora Women's Long Raincoat with Hood and Deep Pockets [SEP] Price: $48.5 to $61.0 [SEP] Rating: N.A. "
        "[SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now\n"
        'Can be clicked: ["back to search", "< prev", "description", "features", "reviews", "buy now", "navy", "yellow", '
        '"olive", "small", "medium", "large"]'
    )


def test_clicks_lead_where_they_say():
    asins = tuple(catalogue("").products)
    third = View(asins[:23], 3)
    assert list(shown(third).clicks) == ["back to search", "< prev", *(asin.lower() for asin in asins[20:23])]
    second = shown(third).clicks["< prev"]
    assert second.page == 2 and shown(second).clicks["next >"] == third
    assert {"< prev", "next >"} <= shown(second).clicks.keys() and len(shown(second).clicks) == 13
    item = shown(third).clicks[asins[21].lower()]
    chosen = shown(item).clicks[next(iter(catalogue("").products[asins[21]].options.values()))[0]]
    assert len(chosen.chosen) == 1 and "Chosen: " in shown(chosen).text
    for sub in ("description", "features", "reviews"):
        reading = shown(chosen).clicks[sub]
        assert list(shown(reading).clicks) == ["back to search", "< prev"] and shown(reading).clicks["< prev"] == chosen
    assert shown(chosen).clicks["< prev"] == third  # what was chosen is forgotten
    assert shown(chosen).clicks["back to search"] == View() and not shown(View()).clicks
    assert shown(chosen).clicks["buy now"].is_bought


def test_the_sub_pages_have_the_products_texts():
    view = View(("TBE0401X1",), 1, "TBE0401X1")
    assert [shown(replace(view, reading=name)).parts[2:] for name in SUB_PAGES] == [
        ("A thick cream for hands that work in the cold.",),
        ("Oat milk and glycerine", "Without perfume"),
        ("No reviews",),
    ]


def test_what_cannot_be_clicked_or_searched_is_an_error_that_says_what_can():
    task = every("webshop")[0]
    env = WebShop()
    env.reset(task)
    found = [env.step(message) for message in (click("buy now"), say("search", keywords="_...!"), say("search", keywords="lamp"))]
    assert [one.signals.outcomes[0].error for one in found] == ["not on this page", "nothing to search for", ""]
    assert "search bar" in found[0].messages[0].content
    after = [env.step(message) for message in (click("red"), say("click"), say("pay", element="x"))]
    errors = [one.signals.outcomes[0].error for one in after]
    assert errors == ["not on this page", "bad arguments", "unknown tool"]
    assert all(clickable(one.messages[0].content)[0] == "back to search" for one in after)
    assert env.step(click("  BACK  to Search ")).signals.outcomes[0].error == ""
    env.close()


def test_a_search_works_on_every_page_and_leaves_it():
    task = every("webshop")[0]
    *before, _ = environment("webshop").oracle(task)
    *_, again = played(task, [*before, say("search", keywords="desk_lamp")]).turns
    *_, first = played(task, [say("search", keywords="desk lamp")]).turns
    assert told_by(again) == told_by(first) and "Total results: 0" not in told_by(first)


def told_by(turn: Turn) -> str:
    return turn.observation.messages[0].content


def test_only_a_purchase_has_a_score_and_it_ends_the_visit():
    task = every("webshop")[0]
    *before, buy = environment("webshop").oracle(task)
    stopped = played(task, [*before, Message("assistant", "I could not decide.")])
    assert stopped.stop is Stop.DONE and stopped.turns[-1].observation.signals.state == {"score": 0.0}
    endless = played(task, [click("nothing")] * (MAX_MESSAGES + 5))
    assert len(endless.turns) == MAX_MESSAGES and endless.turns[-1].observation.signals.state == {"score": 0.0}
    both = Message("assistant", "", (*buy.calls, ToolCall("click", {"element": "back to search"})))
    bought = played(task, [*before, both])
    assert len(bought.turns[-1].observation.signals.outcomes) == 1 and told(bought) == "Thank you for your purchase"
    assert bought.turns[-1].observation.signals.state == {"score": 1.0} and verdict(task, bought) == ""


@given(st.lists(st.tuples(st.sampled_from(["search", "click"]), st.text()), max_size=6))
def test_nothing_that_is_typed_raises(calls: list[tuple[str, str]]):
    task = environment("webshop").taskset("test", "synthetic")[0]
    trajectory = played(task, [say(name, **{"keywords" if name == "search" else "element": text}) for name, text in calls])
    assert all(turn.observation.messages[0].content for turn in trajectory.turns)


@given(st.text(alphabet='abc lamp"+-:()[]{}^~*?\\/AND OR NOT IN TO \u2028', max_size=40))
def test_a_search_takes_words_and_no_query_language(keywords: str):
    found = engine("")(keywords)
    assert len(set(found)) == len(found) and set(found) <= catalogue("").products.keys()


# Data


def copied(folder: Path, products: str) -> str:
    (folder / "items_shuffle.json").write_text(products)
    told = {"B1": {"attributes": ["x y"], "instruction": "I want x", "instruction_attributes": ["x y"]}}
    (folder / "items_ins_v2.json").write_text(json.dumps(told))
    return str(folder)


WHOLE: dict[str, Json] = {
    "asin": "B1", "name": "Lamp", "query": " Lamps ", "product_category": "Home › Lamps", "full_description": None,
    "small_description": "one text", "pricing": "$1,019.99$1,200.00",
    "customization_options": {"Color": [{"value": " Red/Blue "}], "Size": None},
}  # fmt: skip


def test_a_product_is_cleaned_as_the_original_cleans_it(tmp_path: Path):
    people: Json = {"B1": [{"instruction": "a lamp.", "instruction_attributes": ["x y"], "instruction_options": ["red"]}]}
    (tmp_path / "items_human_ins.json").write_text(json.dumps(people))
    longer: Json = [WHOLE, {**WHOLE, "name": "the same again"}, {"asin": "nan"}, {"asin": "B1234567890"}]
    shop = catalogue(copied(tmp_path, json.dumps(longer)))
    (lamp,) = shop.products.values()
    assert "1 products" in shop.about and "items_human_ins.json" in shop.about
    assert lamp.options == {"color": ("red | blue",)} and lamp.bullets == ("one text",) and lamp.query == "lamps"
    assert lamp.prices == (1019.99, 1200.0) and lamp.price_tag == "$1019.99 to $1200.0" and 1019.99 <= lamp.price <= 1200
    assert lamp.description == "" and lamp.attributes == ("x y",)
    (synthetic,), (human,) = (list(goals(str(tmp_path), level).values()) for level in ("synthetic", "human"))
    assert synthetic.text == "I want x with color: red | blue" and synthetic.price_upper == 1_000_000
    assert human.text == "a lamp" and human.options == ("red",)
    (empty := tmp_path / "empty").mkdir()
    assert catalogue(copied(empty, json.dumps([{**WHOLE, "pricing": ""}]))).products["B1"].prices == (100.0,)


@pytest.mark.parametrize(
    ("products", "says"),
    [
        (json.dumps([WHOLE])[:-20], "cut off"),
        ("", "cut off"),
        ("{}", "no list of products"),
        ("[3]", "product 1: it is '3', which is no object"),
        (json.dumps([WHOLE, {k: v for k, v in WHOLE.items() if k != "asin"}]), "product 2: 'asin' is missing"),
        (json.dumps([{k: v for k, v in WHOLE.items() if k != "pricing"}]), "product 1: 'pricing' is missing"),
        (json.dumps([{**WHOLE, "pricing": "cheap"}]), "'cheap', which is no price"),
        (json.dumps([{**WHOLE, "name": 3}]), "'name' is '3', which is no text"),
        (json.dumps([{**WHOLE, "pricing": [10**400]}]), "product 1: int too large"),
        (json.dumps([{**WHOLE, "customization_options": {"Color": [{}]}}]), "'value' is missing"),
    ],
)
def test_broken_data_is_named_with_file_and_remedy(tmp_path: Path, products: str, says: str):
    with pytest.raises(ValueError) as caught:
        environment(f"webshop:{copied(tmp_path, products)}").ready()
    assert says in str(caught.value) and "items_shuffle.json" in str(caught.value) and REMEDY in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("items_ins_v2.json", '{"B1": {"attributes": 7}}', "B1: 'attributes' is '7', which is no list"),
        ("items_ins_v2.json", "[]", "no JSON object"),
        ("items_human_ins.json", '{"B1": [{"instruction": "a"}, 3]}', "B1: an instruction is '3', which is no object"),
    ],
)
def test_what_is_wrong_with_instructions_names_their_file(name: str, text: str, says: str, tmp_path: Path):
    copied(tmp_path, json.dumps([WHOLE]))
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError) as caught:
        environment(f"webshop:{tmp_path}").ready()
    assert f"{tmp_path / name}" in str(caught.value) and says in str(caught.value)


@pytest.mark.parametrize("name", ["products_1000.json", "instructions_1000.json"])
def test_a_changed_file_under_the_usual_name_is_refused(name: str, tmp_path: Path):
    copied(tmp_path, json.dumps([WHOLE]))
    (tmp_path / name).write_text("[]")
    with pytest.raises(ValueError, match=r"its SHA-256 is .*it was changed or cut.*call it items_"):
        environment(f"webshop:{tmp_path}").ready()


def test_threads_that_ask_at_once_get_the_same_catalogue(tmp_path: Path):
    folder = copied(tmp_path, json.dumps([WHOLE]))
    with ThreadPoolExecutor(8) as pool:
        assert len({id(found) for found in pool.map(catalogue, [folder] * 8)}) == 1


def test_missing_files_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no products_1000\.json.*docs/webshop\.md"):
        environment(f"webshop:{tmp_path}").ready()
    (tmp_path / "items_shuffle_1000.json").write_text(json.dumps([WHOLE]))
    with pytest.raises(ValueError, match=r"there is no instructions_1000\.json"):
        environment(f"webshop:{tmp_path}").ready()


# Recorded lines


GOAL: dict[str, Json] = {
    "query": "men's sandals", "name": "Korrigal Men's Trekking Sandals with Three Straps", "product_category": "Shoes",
    "attributes": ["rubber sole"], "price_upper": 40, "goal_options": ["brown"],
}  # fmt: skip
BOUGHT: dict[str, Json] = {"goal": GOAL, "asin": "TFA0201X7", "options": {"color": "brown"}, "price": 35}


def test_lines_in_tiltyards_own_form_go_on_working():
    task = every("webshop")[0]
    made = [call for message in environment("webshop").oracle(task) for call in message.calls]
    calls: Json = [{"name": call.name, "arguments": dict(call.arguments)} for call in made]
    found = score_line("webshop", json.dumps({"task_id": task.id, "turns": [calls]}))
    assert found["success"] is True and found["verdict"] == ""


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({**BOUGHT, "goal": 3}, "'goal' is '3', which is no object"),
        ({**BOUGHT, "asin": "B0"}, "no product is called 'B0'"),
        ({**BOUGHT, "asin": None}, "'asin' is missing"),
        ({**BOUGHT, "options": ["brown"]}, "'options' is .*, which is no object of texts"),
        ({**BOUGHT, "price": "35"}, "'price' is '35', which is no price; the form of a purchase is"),
        ({**BOUGHT, "price": True}, "'price' is 'True'"),
        ({**BOUGHT, "price": float("nan")}, "'price' is 'nan'"),
        ({**BOUGHT, "price": 10**400}, "'price' is '1000"),
        ({**BOUGHT, "goal": {**GOAL, "goal_options": "brown"}}, "'goal_options' is 'brown', which is no list of texts"),
        ({**BOUGHT, "goal": {**GOAL, "goal_options": None}}, "'goal_options' is missing"),
        ({**BOUGHT, "goal": {**GOAL, "attributes": []}}, "'attributes' of the goal is empty"),
        ({**BOUGHT, "goal": {**GOAL, "attributes": [None]}}, "'attributes' is .*, which is no list of texts"),
        ({**BOUGHT, "reward": 1.0, "parts": [1]}, "'parts' is .*, which is no object"),
        ({"turns": []}, "has not the form"),
    ],
)
def test_a_line_that_is_no_purchase_is_said(line: Json, says: str):
    with pytest.raises(ValueError, match=says):
        score_line("webshop", json.dumps(line))


def test_a_purchase_of_a_shipped_product_is_scored_and_compared():
    line = dict(BOUGHT)
    found = score_line("webshop", json.dumps(line))
    assert found["reward"] == 1.0 and "equal" not in found
    line["reward"] = found["reward"]
    assert is_equal(rescored(line, catalogue("")), line) and score_line("webshop", json.dumps(line))["equal"] is True
