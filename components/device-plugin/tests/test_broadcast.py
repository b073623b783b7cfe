"""News on the event loop."""

import asyncio

import pytest

from hami_device_plugin.broadcast import Broadcast, heard


def test_news_before_the_wait_are_not_missed():
    """Who took a waiter before he looked is woken by what came meanwhile."""

    async def scenario():
        news = Broadcast(asyncio.get_running_loop())
        waiter = news.waiter()
        await asyncio.to_thread(news.announce)
        assert await heard(waiter, 10)
        assert not await heard(news.waiter(), 0)

    asyncio.run(scenario())


def test_a_cancellation_that_comes_with_the_news_is_not_lost():
    """The registrar went on for ever when the plugin ended in the moment that it had cause."""

    async def scenario():
        event = asyncio.Event()
        task = asyncio.create_task(heard(event, 10))
        await asyncio.sleep(0)
        event.set()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
