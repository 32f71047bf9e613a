"""The loop: actors fill the buffer, the learner empties it, weights go back. Everything else has a home elsewhere."""

from __future__ import annotations

import asyncio

from actors.env_actor import EnvActor, GroupFault
from cluster.keeper import Keeper
from cluster.system import System
from learner.batch import assemble
from learner.credits import Credits


async def train(system: System, keeper: Keeper) -> None:
    """Act, learn and serve until the last step; any part's failure ends all."""
    actors = system.actors
    async with asyncio.TaskGroup() as tasks:
        count = system.config.actors.max_open_groups
        others = [tasks.create_task(act(system, keeper, actor=actors[n % len(actors)])) for n in range(count)]
        others += [tasks.create_task(keeper.serving.run()), tasks.create_task(keeper.pace.run(system.engines.stats))]
        await learn(system, keeper)
        await keeper.serving.settled()
        for task in others:
            task.cancel()


async def act(system: System, keeper: Keeper, *, actor: EnvActor) -> None:
    while True:
        await system.buffer.admit()
        assignment = await keeper.assign()
        try:
            async with keeper.pace:
                group = await actor.rollout(assignment)
        except GroupFault as fault:
            await keeper.reissue(assignment, fault)
            await system.buffer.give_back()
            continue
        keeper.store(group)
        await system.curriculum.observe(group.outcome)
        keeper.finish(group, await system.buffer.put(group))


async def learn(system: System, keeper: Keeper) -> None:
    config = system.config.learner
    credits = Credits(config.credit, config.solutions)
    for step in range(keeper.step + 1, config.num_steps + 1):
        with keeper.waiting_for_groups():
            groups = await keeper.unless_stopped(system.buffer.take())
        with keeper.phase("learner", "assemble"):
            batch = assemble(
                groups,
                credits,
                num_ranks=config.num_ranks,
                max_tokens=config.max_tokens,
                aggregation=config.aggregation,
                full=config.groups_per_batch,
                every_action=config.kl > 0,
                normalize=config.normalize,
                imitates=credits.imitates,
            )
        with keeper.phase("learner", "update"):
            metrics = await system.learner.update(batch)
        with keeper.phase("learner", "load"):
            await keeper.serving.room()
        with keeper.phase("learner", "publish"):
            weights = await system.learner.publish()
            await keeper.serving.offer(weights)
        await keeper.step_done(step, groups, metrics=metrics)
        keeper.drop(await system.buffer.advance(weights.version))
