"""Boots the demo desktop and tries what a user and a benchmark would.

    python3 check.py ELF [--vmm CARREL-VMM] [--pictures DIRECTORY]

In QEMU, or in the carrel-vmm that is given. Needs /dev/kvm; nothing beyond Python's own
library.
"""

import argparse
import os
import sys
import time

from machines import KEYPAD, QEMU, CarrelVMM, wait_for


def expect(condition, what):
    print(("ok    " if condition else "FAIL  ") + what, flush=True)
    if not condition:
        expect.failures += 1


expect.failures = 0


def check_keyboard(guest):
    guest.clear()
    sample = "".join(chr(code) for code in range(0x20, 0x7F))
    guest.type(sample)
    expect(guest.text() == sample, "every printable key arrives in the editor")
    guest.clear()
    guest.type("abd")
    guest.press("left")
    guest.type("c")
    for name in ("home", "delete", "end", "ret", "tab"):
        guest.press(name)
    guest.type("xy")
    guest.press("backspace")
    guest.press("up")
    guest.press("end")
    guest.type("e")
    expect(guest.text() == "bcde\n    x", "arrows, home, end, delete, backspace, enter and tab edit")
    guest.clear()
    guest.press("caps_lock")
    guest.type("aB1")
    guest.press("caps_lock")
    guest.type("a")
    for name in KEYPAD.values():
        guest.press(name)
    expect(guest.text() == "Ab1a" + "".join(KEYPAD), "caps lock and the keypad type")
    guest.clear()
    guest.type("ab")
    guest.press("num_lock")
    guest.press("kp_4")
    guest.type("x")
    guest.press("num_lock")
    expect(guest.text() == "axb", "the keypad moves without num lock")


def check_pointer(guest):
    for x, y in ((0, 0), (1023, 767), (333, 555)):
        expect(guest.point(x, y), f"the pointer goes to {x}, {y}")
    before = guest.picture().pixel(300, 700)
    guest.point(300, 80)
    guest.button(True)
    for step in range(1, 11):
        guest.point(300, 80 + 30 * step)
    guest.button(False)
    expect(wait_for(lambda: guest.picture().pixel(300, 600) == (255, 255, 255)),
           "a window is dragged by its title")
    guest.point(900, 20)
    guest.click(512, 386)
    expect(wait_for(lambda: guest.picture().pixel(300, 700) == before),
           "a window is closed and shows what was behind")


def check_windows(guest):
    guest.point(700, 150)
    guest.button(True)
    guest.point(750, 175)
    guest.point(800, 200)
    guest.button(False)
    expect(wait_for(lambda: guest.picture().pixel(750, 175) == (0x3B, 0x6F, 0xE5)),
           "the paint window paints what is dragged over it")
    guest.click(474, 84)
    expect(wait_for(lambda: guest.picture().pixel(200, 300) != (255, 255, 255)),
           "a window is minimised")
    guest.click(419, 719)
    expect(wait_for(lambda: guest.picture().pixel(200, 300) == (255, 255, 255)),
           "the dock brings a minimised window back")
    guest.click(300, 500)
    before = guest.picture().data
    guest.type("echo hello")
    guest.press("ret")
    expect(wait_for(lambda: guest.picture().data != before), "the terminal echoes")
    guest.type("scene flip")
    guest.command("send-key", keys=[{"type": "qcode", "data": "ret"}])
    expect(guest.line("scene ") == "flip", "the terminal obeys what is typed")
    guest.command("send-key", keys=[{"type": "qcode", "data": "esc"}])
    guest.line("scene none")


def clock(guest):
    picture = guest.picture()
    return [picture.pixel(x, y) for x in range(440, 584) for y in range(4, 28)]


def check_clock(guest, before):
    """The minute is over at some time during the other checks, or soon after."""
    expect(wait_for(lambda: clock(guest) != before, 65, 1), "the clock shows the next minute")


LAYOUTS = {
    "de": ([["y"], ["semicolon"], ["alt_r", "q"], ["equal"], ["e"], ["minus"], ["caps_lock"],
            ["apostrophe"], ["less"], ["alt_r", "less"], ["caps_lock"], ["alt_r", "4"],
            ["alt_r", "shift", "1"], ["alt_r", "bracket_left"], ["o"]], "zö@éßÄ<|¼¡ö"),
    "fr": ([["q"], ["2"], ["alt_r", "2"], ["shift", "2"], ["bracket_left"], ["e"],
            ["shift", "bracket_left"], ["i"], ["semicolon"], ["alt_r", "e"], ["caps_lock"], ["2"],
            ["caps_lock"], ["alt_r", "bracket_right"], ["alt_r", "4"]], "aé~2êïm€é¤{"),
}


def check_layout(guest, name):
    guest.clear()
    chords, text = LAYOUTS[name]
    for chord in chords:
        guest.press(*chord)
    typed = guest.text()
    expect(typed == text, f"the {name} layout types {text}" + ("" if typed == text else f", not {typed}"))
    guest.clear()
    guest.spell(198)
    expect(guest.text() == "Æ", "Alt and a number on the keypad type its character")


def check_new_user(guest):
    guest.write("user", "Grace Hopper")
    guest.write("keyboard", "fr")
    before = guest.picture().data
    guest.press("wake")
    expect(wait_for(lambda: guest.picture().data != before), "the panel shows another user")
    check_layout(guest, "fr")


def check_scenes(guest):
    guest.tell("scene fullscreen")
    guest.line("scene fullscreen")
    numbers = []
    for _ in range(3):
        time.sleep(0.2)
        picture = guest.picture()
        numbers.append((picture.bar_code(32), picture.bar_code(picture.height - 64)))
    expect(numbers[0][0] < numbers[1][0] < numbers[2][0], "fullscreen counts its frames")
    guest.tell("scene flip")
    guest.line("scene flip")
    area = (64, 64, 128, 128)
    colors = [guest.picture().colors(*area)]
    for _ in range(2):
        guest.press("spc")
        colors.append(guest.picture().colors(*area))
    expect(colors == [{(0, 0, 0)}, {(255, 255, 255)}, {(0, 0, 0)}], "flip turns at each key press")
    for name in ("scroll", "drag", "video", "typing"):
        guest.tell(f"scene {name}")
        guest.line(f"scene {name}")
        time.sleep(0.2)
        first = guest.picture().data
        expect(wait_for(lambda: guest.picture().data != first), f"{name} changes the screen")
    guest.tell("scene idle")
    guest.line("scene idle")
    time.sleep(0.5)
    first, used = guest.picture().data, guest.seconds_of_cpu()
    time.sleep(3)
    used = guest.seconds_of_cpu() - used
    expect(guest.picture().data == first, "idle changes nothing")
    expect(used <= 0.3, f"an idle desktop uses no CPU ({used / 3:.1%} in 3 s)")
    guest.command("send-key", keys=[{"type": "qcode", "data": "esc"}])
    expect(guest.line("scene ") == "none", "Escape ends a scene")


def main():
    parser = argparse.ArgumentParser(description="Tries the demo desktop.")
    parser.add_argument("elf")
    parser.add_argument("--vmm", help="run it in this carrel-vmm instead of in QEMU")
    parser.add_argument("--pictures", help="a directory for screenshots")
    options = parser.parse_args()
    CarrelVMM.program = options.vmm
    machine = CarrelVMM if options.vmm else QEMU

    def keep(name):
        return os.path.join(options.pictures, name + ".png") if options.pictures else None

    start = time.time()
    with machine(options.elf, {"user": "Ada", "desktop": "reading-room-1"}) as guest:
        ready = guest.line("ready ")
        expect(ready == "1024x768 pointer absolute", "the desktop comes up in 1024x768")
        minute = clock(guest)
        guest.picture(keep("desktop"))
        check_keyboard(guest)
        check_windows(guest)
        check_scenes(guest)
        check_pointer(guest)
        check_clock(guest, minute)
        guest.click(1024 - 55, 16)
        guest.command("send-key", keys=[{"type": "qcode", "data": "ret"}])
        guest.line("restart")
        expect(guest.line("ready ") == ready, "the restart button restarts")
        guest.click(1024 - 20, 16)
        guest.press("esc")
        guest.click(1024 - 20, 16)
        guest.point(512 + 80, 384 + 45)
        guest.command("input-send-event", events=[
            {"type": "btn", "data": {"button": "left", "down": True}}])
        guest.line("shutdown")
        expect(guest.process.wait(30) == 0, "the shut-down button turns the machine off")
    files = {"mode": "1280x720", "keyboard": "de", "scene": "video 20", "user": "Ada"}
    with machine(options.elf, files, vmport=False) as guest:
        expect(guest.line("scene ") == "video 20", "fw_cfg selects a scene")
        ready = guest.line("ready ")
        guest.tell("scene none")
        guest.line("scene none")
        if machine is QEMU:
            expect(ready == "1280x720 pointer relative",
                   "fw_cfg selects a mode, and without a backdoor the PS/2 mouse is used")
            x, y = guest.pointer()
            guest.send({"type": "rel", "data": {"axis": "x", "value": -40}},
                       {"type": "rel", "data": {"axis": "y", "value": 25}})
            expect(wait_for(lambda: guest.pointer() == (x - 40, y + 25)),
                   "the PS/2 mouse moves it")
        else:
            expect(ready == "1280x720 pointer absolute", "fw_cfg selects a mode")
        check_layout(guest, "de")
        if machine is CarrelVMM:
            check_new_user(guest)
        guest.picture(keep("layouts"))
        guest.command("system_powerdown")
        guest.line("power button")
        expect(guest.process.wait(30) == 0, "the power button turns the machine off")
    if machine is QEMU:
        with machine(options.elf, {"keyboard": "fr"}) as guest:
            guest.line("ready ")
            guest.press("wake")
            check_layout(guest, "fr")
    print(f"{machine.name}: {expect.failures} failures in {time.time() - start:.0f} s")
    sys.exit(1 if expect.failures else 0)


if __name__ == "__main__":
    main()
