"""Real viewers, driven as a person would: TigerVNC under Xvfb, noVNC in Chromium.

Everything waits for events (a window, a picture, a process's end), never for time.
"""
import os
import pathlib
import select
import signal
import subprocess
import time


class ViewerError(Exception):
    pass


def run(*arguments, **options):
    """Runs a command and returns what it printed; its failure is an error."""
    done = subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=60, **options)
    if done.returncode != 0:
        raise ViewerError(f"{' '.join(map(str, arguments))}: {done.stderr.strip()}")
    return done.stdout


def until(what, condition, seconds=30):
    """Polls an outside program's state that no event tells us about."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ViewerError(f"gave up waiting for {what} after {seconds} s")
        select.select([], [], [], 0.1)


class Screen:
    """An X display of its own (Xvfb picks a free number and says which)."""

    def __init__(self, size="1280x900"):
        reading, writing = os.pipe()
        self.process = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{size}x24", "-nolisten", "tcp"],
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
            return found.stdout.split()
        return until("the viewer's window", window)[-1]

    def xdotool(self, *arguments):
        return run("xdotool", *map(str, arguments), env=self.screen.environment)

    def type(self, text):
        self.xdotool("type", "--delay", "25", text)

    def key(self, *names):
        self.xdotool("key", "--delay", "40", *names)

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
    """noVNC's own page in headless Chromium."""

    def __init__(self, url, user, password, size=(1100, 900)):
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
        self.log_in(user, password)

    def visible(self, identifier):
        found = self.driver.find_elements(self.by.ID, identifier)
        return found[0] if found and found[0].is_displayed() else None

    def log_in(self, user, password):
        name = until("noVNC's credentials form", lambda: self.visible("noVNC_username_input"))
        name.send_keys(user)
        self.visible("noVNC_password_input").send_keys(password)
        self.visible("noVNC_credentials_button").click()
        until("noVNC's canvas", self.canvas)

    def canvas(self):
        found = self.driver.find_elements(self.by.CSS_SELECTOR, "#noVNC_container canvas")
        return found[0] if found and found[0].size["width"] > 100 else None

    def screenshot(self, path):
        path = pathlib.Path(path)
        self.canvas().screenshot(str(path))
        return path

    def close(self):
        self.driver.quit()


def difference(first, second, crop=None):
    """How many pixels of two pictures differ, by ImageMagick's absolute error."""
    geometry = ["-crop", crop, "+repage"] if crop else []
    done = subprocess.run(
        ["compare", "-metric", "AE", "(", str(first), *geometry, ")",
         "(", str(second), *geometry, ")", "null:"], capture_output=True, text=True)
    if done.returncode > 1:
        raise ViewerError(f"compare {first} {second}: {done.stderr.strip()}")
    return int(float(done.stderr.split()[0]))
