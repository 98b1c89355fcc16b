"""Drives a carrel-vmm through its control socket with QEMU's own client library.

usage: drive-qmp.py SOCKET DIRECTORY
"""
import asyncio
import os
import sys

from qemu.qmp import ExecuteError, QMPClient


async def refused(client, command, arguments, error_class, text):
    try:
        await client.execute(command, arguments)
    except ExecuteError as error:
        assert error.error_class == error_class, error.error_class
        assert text in str(error), error
    else:
        raise AssertionError(f"{command} {arguments} was not refused")


async def next_event(listener, name):
    event = await asyncio.wait_for(listener.get(), 20)
    assert event["event"] == name, event
    return event


async def main(socket, directory):
    first, second = QMPClient("first"), QMPClient("second")
    await first.connect(socket)
    await second.connect(socket)
    with second.listener() as events:
        status = await first.execute("query-status")
        assert status == {"running": True, "status": "running", "singlestep": False}, status
        names = {entry["name"] for entry in await first.execute("query-commands")}
        assert {"stop", "cont", "screendump", "quit"} <= names, names
        assert (await first.execute("query-version"))["package"] == "carrel"

        await first.execute("stop")
        await next_event(events, "STOP")
        assert (await second.execute("query-status"))["status"] == "paused"
        answer = await first.execute(
            "human-monitor-command", {"command-line": "info status"})
        assert answer == "VM status: paused\r\n", answer
        await first.execute("cont")
        await next_event(events, "RESUME")

        ppm, png = os.path.join(directory, "a.ppm"), os.path.join(directory, "a.png")
        await first.execute("screendump", {"filename": ppm})
        await first.execute("screendump", {"filename": png, "format": "png"})
        with open(ppm, "rb") as file:
            assert file.read(2) == b"P6"
        with open(png, "rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"
        await refused(first, "screendump", {"filename": "/nowhere/a.ppm"},
                      "GenericError", "/nowhere/a.ppm")
        await refused(first, "frobnicate", {}, "CommandNotFound", "frobnicate")

        key = {"type": "qcode", "data": "a"}
        await first.execute("send-key", {"keys": [key], "hold-time": 1})
        await first.execute("input-send-event", {"events": [
            {"type": "abs", "data": {"axis": "x", "value": 100}},
            {"type": "abs", "data": {"axis": "y", "value": 200}},
            {"type": "btn", "data": {"button": "left", "down": True}},
            {"type": "btn", "data": {"button": "left", "down": False}},
            {"type": "key", "data": {"down": True, "key": key}},
            {"type": "key", "data": {"down": False, "key": key}}]})

        await first.execute("system_powerdown")
        await next_event(events, "POWERDOWN")
        await first.execute("system_reset")
        event = await next_event(events, "RESET")
        assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}, event

        await first.execute("quit")
        event = await next_event(events, "SHUTDOWN")
        assert event["data"] == {"guest": False, "reason": "host-qmp-quit"}, event
    for client in (first, second):
        try:
            await client.disconnect()
        except EOFError:
            pass
    print("driven")


asyncio.run(main(*sys.argv[1:]))
