"""Real viewers, driven as a person would: TigerVNC under Xvfb, noVNC in Chromium.

Everything waits for events (a window, a picture, a process's end), never for time.
"""
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import time
import typing


class ViewerError(Exception):
    pass


def run(*arguments, **options):
    """Runs a command and returns what it printed; its failure is an error."""
    done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=60, **options)
    if done.returncode != 0:
        raise ViewerError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def until(what, condition, seconds=90):
    """Polls an outside program's state that no event tells us about."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ViewerError(f"gave up waiting for {what} after {seconds} s")
        select.select([], [], [], 0.1)


class Key(typing.NamedTuple):
    """A key of keyboard.txt; `plain` and `shifted` are what it types, if anything."""
    code: int
    x: int
    dom: str
    plain: typing.Optional[str]
    shifted: typing.Optional[str]

    @property
    def is_on_keypad(self):
        return self.dom.startswith("Numpad")


def keyboard():
    """All 105 keys, as keyboard.txt beside this file lists them."""
    characters = {"none": None, "space": " "}
    keys = []
    with open(pathlib.Path(__file__).with_name("keyboard.txt"), encoding="utf-8") as lines:
        for line in lines:
            if line.strip() and not line.startswith("#"):
                code, x, dom, plain, shifted, _ = line.split()
                keys.append(Key(int(code, 16), int(x), dom, characters.get(plain, plain),
                                characters.get(shifted, shifted)))
    return keys


LATIN_1 = "".join(chr(code) for code in range(0xA1, 0x100) if code != 0xAD)


def whole_keyboard():
    """Presses of every key, each (key, with Shift), and what they leave in the demo
    desktop's editor when its caret stands on an empty last line."""
    keys = {key.dom: key for key in keyboard()}
    presses, lines = [], []

    def press(*names):
        presses.extend((keys[name], False) for name in names)

    for with_shift in (False, True):
        line = ""
        for key in keys.values():
            typed = key.shifted if with_shift else key.plain
            if typed:
                presses.append((key, with_shift))
                line += typed
        lines.append(line)
        press("NumpadEnter" if with_shift else "Enter")
    # What edits: "xy", "xay", "ay", "a", and a tab to column 4.
    press("KeyX", "KeyY", "ArrowLeft", "KeyA", "Home", "Delete", "End", "Backspace", "Tab")
    press("ArrowUp", "ArrowDown", "PageUp", "PageDown", "ArrowLeft", "ArrowRight")
    lines.append("a   ")
    # What leaves no trace; locks are pressed twice.
    press(*(f"F{number}" for number in range(1, 13)), "Escape", "PrintScreen", "Pause", "Insert",
          "ContextMenu", "ShiftLeft", "ShiftRight", "ControlLeft", "ControlRight", "AltLeft",
          "AltRight", "MetaLeft", "MetaRight", "CapsLock", "CapsLock", "NumLock", "NumLock",
          "ScrollLock", "ScrollLock")
    assert {key.dom for key, _ in presses} == set(keys), "a key is left out"
    return presses, "\n".join(lines)


def type_whole_keyboard(viewer):
    """Types every key, and all of Latin-1 where that can be, through `viewer`, a TigerVNC
    or a NoVNC that shows a demo desktop whose editor has the focus and the caret on an
    empty last line; returns what the editor has more."""
    presses, text = whole_keyboard()
    viewer.press(presses)
    if not viewer.types_latin_1:
        return text
    viewer.type(LATIN_1)
    return text + LATIN_1


def picture_with_text(text, path, vmm, kernel, user, desktop):
    """A picture of a demo desktop of this user's into whose editor `text` was typed over
    QMP, without any viewer: what a viewer's must show."""
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "demo-desktop"))
    from machines import CarrelVMM
    CarrelVMM.program = str(vmm)
    with CarrelVMM(str(kernel), {"user": user, "desktop": desktop}) as guest:
        guest.line("ready ")
        guest.type(text)
        guest.command("screendump", filename=str(path), format="png")
    return path


class Screen:
    """An X display of its own (Xvfb picks a free number and says which)."""

    def __init__(self, size="1280x900"):
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-nolisten", "tcp", "-r",
             "-noreset"],
            pass_fds=[writing], stderr=subprocess.DEVNULL, start_new_session=True)
        os.close(writing)
        number = b""
        while not number.endswith(b"\n"):
            ready, _, _ = select.select([reading], [], [], 30)
            chunk = os.read(reading, 16) if ready else b""
            if not chunk:
                raise ViewerError("Xvfb did not start")
            number += chunk
        os.close(reading)
        self.name = ":" + number.decode().strip()
        self.environment = dict(os.environ, DISPLAY=self.name)

    def close(self):
        self.process.terminate()
        self.process.wait()


class TigerVNC:
    """`vncviewer`, full-screen on an X display of its own, lossless."""

    # xdotool types what no key has by giving it to one for a moment, too short a moment
    # for a viewer that looks keys up.
    types_latin_1 = False

    def __init__(self, port, certificate=None, user=None, password=None, password_file=None,
                 host="127.0.0.1", size="1024x768"):
        self.screen = Screen(size)
        environment = dict(self.screen.environment)
        arguments = ["vncviewer", "-FullScreen", "-AutoSelect=0", "-PreferredEncoding=ZRLE",
                     "-FullColor", "-NoJPEG", "-RemoteResize=0", "-AlertOnFatalError=0",
                     "-ReconnectOnError=0", "-MenuKey="]
        if certificate:
            environment.update(VNC_USERNAME=user, VNC_PASSWORD=password)
            arguments += ["-SecurityTypes=X509Plain", f"-X509CA={certificate}"]
        elif not password_file:
            arguments += ["-SecurityTypes=None"]
        else:
            arguments += ["-SecurityTypes=VncAuth", f"-PasswordFile={password_file}"]
        self.process = subprocess.Popen(
            [*arguments, f"{host}::{port}"], env=environment, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            self.window = self.wait_for_window()
        except ViewerError:
            self.close()
            raise

    def wait_for_window(self):
        def window():
            if self.process.poll() is not None:
                raise ViewerError("vncviewer ended: " + self.process.stdout.read()[-400:])
            found = subprocess.run(
                ["xdotool", "search", "--onlyvisible", "--name", "TigerVNC"],
                env=self.screen.environment, capture_output=True, text=True)
            # Going to full screen makes a new window, which has no title until the
            # desktop's name changes; there is no other on this screen.
            return found.stdout.split() or self.large_windows()
        return until("the viewer's window", window)[-1]

    def large_windows(self):
        # An X server whose last client left does not answer for a moment.
        tree = subprocess.run(["xwininfo", "-root", "-tree"], env=self.screen.environment,
                              capture_output=True, text=True)
        return re.findall(r"(0x[0-9a-f]+) .*: \(.*\)  [0-9]{3,}x[0-9]{3,}\+", tree.stdout)

    def xdotool(self, *arguments):
        return run("xdotool", *map(str, arguments), env=self.screen.environment)

    def type(self, text):
        self.xdotool("type", "--delay", "25", text)

    def key(self, *names):
        self.xdotool("key", "--delay", "40", *names)

    def press(self, presses):
        """Presses keys by their place, each (key, with Shift)."""
        self.xdotool("windowfocus", "--sync", self.window)
        # To xdotool a single digit is that digit's key, not a code.
        names = [f"50+{key.x}" if with_shift else "Escape" if key.x < 10 else key.x
                 for key, with_shift in presses]
        self.xdotool("key", "--delay", "30", *names)

    def click(self, x, y):
        self.xdotool("mousemove", x, y, "click", 1)

    def screenshot(self, path):
        """The whole X screen as PNG; the full-screen viewer fills it."""
        path = pathlib.Path(path)
        run("import", "-window", "root", str(path), env=self.screen.environment)
        return path

    def ended(self, seconds=10):
        return self.process.wait(seconds)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()
        self.screen.close()


class NoVNC:
    """noVNC's own page in headless Chromium. Without a user there is no form to fill."""

    types_latin_1 = True

    def __init__(self, url, user=None, password=None, size=(1100, 900)):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        from selenium.webdriver.common.by import By
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu",
                     "--ignore-certificate-errors", f"--window-size={size[0]},{size[1]}"):
            options.add_argument(flag)
        self.by = By
        self.driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
        self.driver.get(url)
        if user:
            self.log_in(user, password)
        until("noVNC's canvas", self.canvas)

    def visible(self, identifier):
        found = self.driver.find_elements(self.by.ID, identifier)
        return found[0] if found and found[0].is_displayed() else None

    def log_in(self, user, password):
        name = until("noVNC's credentials form", lambda: self.visible("noVNC_username_input"))
        name.send_keys(user)
        self.visible("noVNC_password_input").send_keys(password)
        self.visible("noVNC_credentials_button").click()

    def canvas(self):
        found = self.driver.find_elements(self.by.CSS_SELECTOR, "#noVNC_container canvas")
        return found[0] if found and found[0].size["width"] > 100 else None

    def screenshot(self, path):
        path = pathlib.Path(path)
        self.canvas().screenshot(str(path))
        return path

    def focus(self):
        """Keys go to the desktop from now on, not to the page."""
        self.driver.execute_script("arguments[0].focus()", self.canvas())

    def type(self, text):
        """Types characters as WebDriver does: by key where it knows one, else by name. At
        a typist's pace: a guest's keyboard holds only so many keys that wait."""
        from selenium.webdriver.common.action_chains import ActionChains
        self.focus()
        for start in range(0, len(text), 40):
            actions = ActionChains(self.driver, duration=0)
            for character in text[start:start + 40]:
                actions.send_keys(character).pause(0.05)
            actions.perform()

    def press(self, presses):
        """Presses keys by their place, each (key, with Shift). WebDriver has no names for
        locks and Print, and none for places, so these go in below it."""
        self.focus()
        shift = next(key for key in keyboard() if key.dom == "ShiftLeft")
        for key, with_shift in presses:
            if with_shift:
                self.dispatch("rawKeyDown", shift, True)
            self.dispatch("rawKeyDown", key, with_shift)
            self.dispatch("keyUp", key, with_shift)
            if with_shift:
                self.dispatch("keyUp", shift, False)

    def dispatch(self, kind, key, with_shift):
        sides = {"Left": 1, "Right": 2}
        name = key.shifted if with_shift and key.shifted else key.plain
        location = 3 if key.is_on_keypad else 0
        if not name:
            name = key.dom.removeprefix("Numpad")
            for side in sides:
                if name.endswith(side) and not name.startswith("Arrow"):
                    name, location = name.removesuffix(side), sides[side]
        self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {
            "type": kind, "code": key.dom, "key": name, "location": location,
            "isKeypad": key.is_on_keypad, "modifiers": 8 if with_shift else 0})

    def close(self):
        self.driver.quit()


class Relay:
    """websockify, between noVNC's page at `url` and a VNC port that has no gateway."""

    def __init__(self, vnc_port):
        port = free_port()
        self.process = subprocess.Popen(
            ["websockify", "--web", "/usr/share/novnc", f"127.0.0.1:{port}",
             f"127.0.0.1:{vnc_port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}/vnc.html?autoconnect=1&resize=off"
        until("websockify", lambda: answers(port))

    def close(self):
        self.process.terminate()
        self.process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def difference(first, second, crop=None):
    """How many pixels of two pictures differ, by ImageMagick's absolute error."""
    geometry = ["-crop", crop, "+repage"] if crop else []
    done = subprocess.run(
        ["compare", "-metric", "AE", "(", str(first), *geometry, ")",
         "(", str(second), *geometry, ")", "null:"], capture_output=True, text=True)
    if done.returncode > 1:
        raise ViewerError(f"compare {first} {second}: {done.stderr.strip()}")
    return int(float(done.stderr.split()[0]))
