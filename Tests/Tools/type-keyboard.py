"""Types every key at both levels, then all of Latin-1, through real viewers.

    type-keyboard.py --vnc PORT         noVNC at a VNC port; what comes out is the caller's
    type-keyboard.py --vmm VMM KERNEL   TigerVNC and noVNC at a demo desktop in that
                                        carrel-vmm, and reads its editor back
"""
import pathlib
import sys

ASSETS = pathlib.Path(__file__).resolve().parents[2] / "assets"
sys.path[:0] = [str(ASSETS / "demo"), str(ASSETS / "demo-desktop")]
from machines import CarrelVMM  # noqa: E402
from viewers import (  # noqa: E402
    LATIN_1, NoVNC, Relay, TigerVNC, ViewerError, answers, free_port, keyboard,
    type_whole_keyboard, until)


def press_all(port):
    relay = Relay(port)
    try:
        page = NoVNC(relay.url)
        try:
            page.press([(key, False) for key in keyboard()])
            page.press([(key, True) for key in keyboard() if key.shifted])
            page.type(LATIN_1)
        finally:
            page.close()
    finally:
        relay.close()


class Desktop(CarrelVMM):
    """A demo desktop that viewers reach at a port."""

    def __init__(self, kernel):
        self.port = free_port()
        super().__init__(kernel, {"user": "Ada"})

    def arguments(self, *arguments):
        return super().arguments(*arguments) + ["--vnc", f"127.0.0.1:{self.port}"]


def type_into(guest, name, viewer):
    """Types through `viewer` and compares what stands in the editor. Twice, if need be:
    a host that stands still for half a second makes a key repeat, as it should."""
    try:
        for attempt in (1, 2):
            guest.clear()
            wanted = type_whole_keyboard(viewer)
            try:
                until("all of it", lambda: guest.text() == wanted, 60)
                print(f"{name}: {len(wanted)} characters, as typed")
                return
            except ViewerError:
                print(f"{name}: the editor has\n{guest.text()}\ninstead of\n{wanted}")
        sys.exit(1)
    finally:
        viewer.close()


def read_back(vmm, kernel):
    CarrelVMM.program = vmm
    with Desktop(kernel) as guest:
        guest.line("ready ")
        until("the VNC port", lambda: answers(guest.port))
        type_into(guest, "TigerVNC", TigerVNC(guest.port))
        relay = Relay(guest.port)
        try:
            type_into(guest, "noVNC", NoVNC(relay.url))
        finally:
            relay.close()


if sys.argv[1] == "--vnc":
    press_all(int(sys.argv[2]))
else:
    read_back(sys.argv[2], sys.argv[3])
