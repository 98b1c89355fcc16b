"""A whole Carrel in a directory of its own: carreld, three pools, two users."""
import json
import os
import pathlib
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / ".build" / "release"
PROGRAMS = ("carreld", "carrel", "carrel-vmm", "carrel-display")
DESKTOP_KERNEL = ROOT / "build" / "demo-desktop" / "carrel-demo.elf"
GRUB_CD = pathlib.Path("/usr/lib/grub-rescue/grub-rescue-cdrom.iso")

CONFIGURATION = """\
state_directory: {directory}/state
runtime_directory: {directory}/run
gateway:
  listen: ["127.0.0.1:{vnc}"]
  web: ["127.0.0.1:{web}"]
programs:
  vmm: {bin}/carrel-vmm
  display: {bin}/carrel-display
desktops:
  stop_at_exit: true
"""


class DemoError(Exception):
    pass


def end_on_signals():
    """Ctrl-C, a closed terminal and SIGTERM end the program, once: what comes while it
    cleans up changes nothing."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(*_):
        for number in numbers:
            signal.signal(number, lambda *_: None)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def first_free_port(wanted):
    for port in range(wanted, wanted + 50):
        if port_is_free(port):
            return port
    raise DemoError(f"no free port from {wanted} on")


class DemoSite:
    """Use as a context manager: leaving it leaves no process and no file behind."""

    def __init__(self, keep_logs_in=None):
        self.directory = None
        self.vnc = first_free_port(5900)
        self.web = first_free_port(8443)
        self.passwords = {}
        self.daemon = None
        self.keep_logs_in = keep_logs_in

    @property
    def certificate(self):
        found = sorted((self.directory / "state").rglob("*cert*.pem"))
        if not found:
            raise DemoError("carreld issued no certificate")
        return found[0]

    @property
    def fingerprint(self):
        return self.carrel("status")["fingerprint"]

    def __enter__(self):
        try:
            self.directory = pathlib.Path(tempfile.mkdtemp(prefix="carrel-demo-"))
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self):
        configuration = self.directory / "carrel.yaml"
        configuration.write_text(CONFIGURATION.format(
            directory=self.directory, vnc=self.vnc, web=self.web, bin=BIN))
        self.start_daemon()

    def start_daemon(self):
        self.log = open(self.directory / "carreld.log", "ab")
        self.daemon = subprocess.Popen(
            [BIN / "carreld", "--config", self.directory / "carrel.yaml"],
            stdout=self.log, stderr=self.log, start_new_session=True)
        deadline = time.monotonic() + 60
        while subprocess.run(self.command("status"), capture_output=True).returncode != 0:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise DemoError("carreld did not start:\n" + self.log_tail())
            select.select([], [], [], 0.1)

    def log_tail(self):
        return "".join(open(self.directory / "carreld.log").readlines()[-20:])

    def command(self, *arguments):
        return [str(BIN / "carrel"), *map(str, arguments),
                "--socket", str(self.directory / "run" / "control.sock")]

    def carrel(self, *arguments, stdin=None, show=False):
        """Runs one `carrel` command; returns its JSON, or shows its own output."""
        if show:
            done = subprocess.run(self.command(*arguments))
            if done.returncode != 0:
                raise DemoError("carrel " + " ".join(map(str, arguments)) + " failed")
            return None
        done = subprocess.run(self.command(*arguments, "--json"), input=stdin,
                              capture_output=True, text=True, timeout=330)
        if done.returncode != 0:
            raise DemoError(f"carrel {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def create_pools(self, show=False):
        self.carrel("pool", "create", "lounge", "--kind", "floating", "--image", DESKTOP_KERNEL,
                    "--memory", "128M", "--size", 4, "--spares", 1, show=show)
        self.carrel("pool", "create", "office", "--kind", "dedicated", "--image", DESKTOP_KERNEL,
                    "--memory", "128M", "--size", 4, "--spares", 1, show=show)
        self.carrel("pool", "create", "rescue", "--kind", "floating", "--image", GRUB_CD,
                    "--memory", "128M", "--size", 2, "--spares", 1, show=show)

    def add_user(self, name, *pools):
        password = secrets.token_urlsafe(6)
        self.carrel("user", "add", name, "--password-stdin", stdin=password + "\n")
        for pool in pools:
            self.carrel("entitle", name, pool)
        self.passwords[name] = password

    def desktop_of(self, user, pool=None):
        for session in self.carrel("session", "list"):
            if session["user"] == user and pool in (None, session["pool"]):
                return session["desktop"]
        raise DemoError(f"{user} has no session")

    def __exit__(self, *_):
        if self.directory is None:
            return
        try:
            self.end_daemon()
            self.end_survivors()
        finally:
            try:
                self.keep_logs()
            finally:
                self.remove()

    def remove(self):
        try:
            shutil.rmtree(self.directory)
        except OSError as error:
            raise DemoError(f"{self.directory} cannot be removed: {error}") from None

    def end_daemon(self):
        if not self.daemon or self.daemon.poll() is not None:
            return
        self.daemon.send_signal(signal.SIGTERM)
        try:
            self.daemon.wait(60)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()

    def keep_logs(self):
        if not self.keep_logs_in:
            return
        for log in self.directory.rglob("*.log"):
            name = "-".join(log.relative_to(self.directory).parts)
            shutil.copy(log, pathlib.Path(self.keep_logs_in) / name)

    def kill_everything(self):
        """As a host that fails; `start_daemon` starts carreld again."""
        self.daemon.kill()
        self.daemon.wait()
        self.end_survivors()

    def end_survivors(self):
        """Desktops outlive a carreld that was killed; those of a demo must not."""
        for process in self.processes():
            try:
                descriptor = os.pidfd_open(process)
            except ProcessLookupError:
                continue
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                select.select([descriptor], [], [], 10)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)

    def processes(self):
        """The processes of this site: programs of this build that were given its
        directory. A viewer that was given the certificate is somebody else's."""
        return processes_of(self.directory)


def processes_of(directory):
    programs = {str((BIN / name).resolve()) for name in PROGRAMS}
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            # A program that was built anew while it ran is said to be deleted.
            program = os.readlink(entry / "exe").removesuffix(" (deleted)")
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if program in programs and str(directory).encode() in words:
            found.append(int(entry.name))
    return found
