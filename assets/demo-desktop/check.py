"""Boots the demo desktop and tries what a user and a benchmark would.

    python3 check.py ELF [--vmm CARREL-VMM] [--pictures DIRECTORY]

In QEMU, or in the carrel-vmm that is given. Needs /dev/kvm; nothing beyond Python's own
library.
"""

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time

PLAIN = {
    "1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8",
    "9": "9", "0": "0", "-": "minus", "=": "equal", "[": "bracket_left",
    "]": "bracket_right", ";": "semicolon", "'": "apostrophe", "`": "grave_accent",
    "\\": "backslash", ",": "comma", ".": "dot", "/": "slash", " ": "spc",
}
SHIFTED = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./"))
KEYPAD = {
    "7": "kp_7", "8": "kp_8", "9": "kp_9", "-": "kp_subtract", "4": "kp_4", "5": "kp_5",
    "6": "kp_6", "+": "kp_add", "1": "kp_1", "2": "kp_2", "3": "kp_3", "0": "kp_0",
    ".": "kp_decimal", "/": "kp_divide", "*": "kp_multiply",
}


def keys_for(character):
    if character in SHIFTED:
        return ["shift", PLAIN[SHIFTED[character]]]
    if character.isupper():
        return ["shift", character.lower()]
    return [PLAIN.get(character, character)]


class Lines:
    """A serial line over two pipes, which hold more unread bytes than a socket does: a
    machine whose output nobody takes stands still."""

    def __init__(self, to, source):
        self.to, self.source, self.waiting = to, source, b""

    def readline(self):
        while b"\n" not in self.waiting:
            # Firmware is interpreted on some hosts, and others may be busy.
            if not select.select([self.source], [], [], 60)[0]:
                raise AssertionError("the serial line is silent")
            part = os.read(self.source.fileno(), 65536)
            if not part:
                return ""
            self.waiting += part
        line, self.waiting = self.waiting.split(b"\n", 1)
        return line.decode() + "\n"

    def write(self, text):
        self.to.write(text.encode())
        self.to.flush()

    def close(self):
        self.to.close()
        self.source.close()


class Guest:
    """One machine with its QMP and serial connections. `files` are fw_cfg files."""

    def __init__(self, elf, files, vmport=True):
        self.directory = tempfile.TemporaryDirectory()
        qmp = os.path.join(self.directory.name, "qmp")
        self.process = subprocess.Popen(
            self.arguments(elf, qmp, files, vmport), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.serial = Lines(self.process.stdin, self.process.stdout)
        self.qmp = self.connect(qmp).makefile("rw", encoding="utf-8")
        self.qmp.readline()
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.serial.close()
        self.directory.cleanup()

    def connect(self, path):
        deadline = time.monotonic() + 20
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(path)
                connection.settimeout(30)
                return connection
            except OSError:
                connection.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def command(self, name, **arguments):
        self.qmp.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.qmp.flush()
        while True:
            answer = json.loads(self.qmp.readline())
            if "error" in answer:
                raise AssertionError(answer["error"]["desc"])
            if "return" in answer:
                return answer["return"]

    def line(self, prefix):
        """The next serial line that starts with `prefix`, without it."""
        while True:
            text = self.serial.readline()
            if not text:
                raise AssertionError(f"the serial line ended while waiting for {prefix!r}")
            text = text.rstrip("\r\n").removeprefix("carrel: ")
            if text.startswith("fault"):
                raise AssertionError(text)
            if text.startswith(prefix):
                return text[len(prefix):]

    def tell(self, text):
        self.serial.write(text + "\n")

    def clear(self):
        self.tell("clear")
        self.line("cleared")

    def press(self, *names):
        """Presses a chord and waits until the guest has seen its release."""
        self.command("send-key", keys=[{"type": "qcode", "data": n} for n in names],
                     **{"hold-time": 5})
        for _ in names:
            while not self.line("key ").endswith("up"):
                pass

    def type(self, text):
        for character in text:
            if character == "\n":
                self.press("ret")
            elif character > "~":
                self.spell(ord(character))
            else:
                self.press(*keys_for(character))

    def spell(self, number):
        """Types a character that the keyboard may lack, with Alt and its number."""
        self.send(key("alt", True))
        for digit in f"0{number}":
            self.send(key(KEYPAD[digit], True), key(KEYPAD[digit], False))
        self.send(key("alt", False))
        while self.line("key ") != "38 up":
            pass

    def text(self):
        self.tell("text")
        lines = []
        while True:
            line = self.line("")
            if line == "end":
                return "\n".join(lines)
            if line.startswith("text "):
                lines.append(line[5:])

    def send(self, *events):
        self.command("input-send-event", events=list(events))

    def point(self, x, y, size=(1024, 768)):
        self.send(
            {"type": "abs", "data": {"axis": "x", "value": round(x * 32767 / (size[0] - 1))}},
            {"type": "abs", "data": {"axis": "y", "value": round(y * 32767 / (size[1] - 1))}})
        return wait_for(lambda: self.pointer() == (x, y))

    def button(self, down):
        self.send({"type": "btn", "data": {"button": "left", "down": down}})
        # The serial line's answer comes after the button's event was obeyed.
        time.sleep(0.05)
        self.pointer()

    def click(self, x, y):
        self.point(x, y)
        self.button(True)
        self.button(False)

    def pointer(self):
        self.tell("pointer")
        return tuple(int(part) for part in self.line("pointer ").split())

    def picture(self, keep=None):
        path = os.path.join(self.directory.name, "screen.ppm")
        self.command("screendump", filename=path)
        if keep:
            self.command("screendump", filename=keep, format="png")
        return Picture(path)

    def seconds_of_cpu(self):
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class QEMU(Guest):
    name = "QEMU"

    def arguments(self, elf, qmp, files, vmport):
        machine = "pc" if vmport else "pc,vmport=off"
        arguments = ["qemu-system-x86_64", "-machine", machine, "-enable-kvm", "-m", "128",
                     "-vga", "std", "-net", "none", "-display", "none", "-kernel", elf,
                     "-qmp", f"unix:{qmp},server=on,wait=off", "-serial", "stdio",
                     # The next minute comes while other things are checked.
                     "-rtc", "base=2030-05-05T12:59:30"]
        for name, text in files.items():
            arguments += ["-fw_cfg", f"name=opt/carrel/{name},string={text}"]
        return arguments


class CarrelVMM(Guest):
    """Its fw_cfg files can change while it runs."""

    name = "carrel-vmm"
    program = None

    def arguments(self, elf, qmp, files, vmport):
        arguments = [self.program, "run", "--memory", "128M", "--kernel", elf, "--control", qmp,
                     "--serial", "stdio"]
        for name, text in files.items():
            self.write(name, text)
            arguments += ["--fw-cfg", f"name=opt/carrel/{name},file={self.path(name)}"]
        return arguments

    def path(self, name):
        return os.path.join(self.directory.name, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)


class Picture:
    def __init__(self, path):
        with open(path, "rb") as file:
            assert file.readline() == b"P6\n"
            self.width, self.height = (int(part) for part in file.readline().split())
            file.readline()
            self.data = file.read()

    def pixel(self, x, y):
        start = (y * self.width + x) * 3
        return tuple(self.data[start:start + 3])

    def colors(self, x, y, width, height):
        return {self.pixel(i, j) for i in range(x, x + width, 3) for j in range(y, y + height, 3)}

    def bar_code(self, y):
        cells = [self.pixel(32 + 16 * i + 8, y + 16)[1] > 127 for i in range(36)]
        assert cells[0] and not cells[1] and cells[35], "no bar code"
        assert sum(cells[2:35]) % 2 == 0, "bar code parity"
        return sum(cell << (31 - i) for i, cell in enumerate(cells[2:34]))


def expect(condition, what):
    print(("ok    " if condition else "FAIL  ") + what, flush=True)
    if not condition:
        expect.failures += 1


expect.failures = 0


def wait_for(condition, seconds=5, step=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


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


def key(name, down):
    return {"type": "key", "data": {"key": {"type": "qcode", "data": name}, "down": down}}


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
    expect(used <= 0.06, f"an idle desktop uses no CPU ({used / 3:.1%} in 3 s)")
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
        expect(guest.process.wait(5) == 0, "the shut-down button turns the machine off")
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
        expect(guest.process.wait(5) == 0, "the power button turns the machine off")
    if machine is QEMU:
        with machine(options.elf, {"keyboard": "fr"}) as guest:
            guest.line("ready ")
            guest.press("wake")
            check_layout(guest, "fr")
    print(f"{machine.name}: {expect.failures} failures in {time.time() - start:.0f} s")
    sys.exit(1 if expect.failures else 0)


if __name__ == "__main__":
    main()
