"""Machines with a demo desktop in them, driven over QMP and the serial line."""

import json
import os
import select
import socket
import subprocess
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
        deadline = time.monotonic() + 60
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


def wait_for(condition, seconds=5, step=0.05):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(step)
    return True


def key(name, down):
    return {"type": "key", "data": {"key": {"type": "qcode", "data": name}, "down": down}}
