import ControlAPI
import Foundation
import TestSupport
import Testing

@Suite("carrel and carreld")
struct CommandLineTests {
  private let home: Home
  private let daemon: RunningDaemon

  init() throws {
    home = try Home()
    daemon = try RunningDaemon(home)
  }

  private func makeOffice(_ more: String...) throws {
    let result = try home.run(
      "carrel",
      ["pool", "create", "office", "--image", home.image, "--size", "3", "--spares", "2"] + more)
    try #require(result.code == 0, "\(result.errors)")
  }

  @Test("a pool is made, shown, changed and deleted")
  func pools() throws {
    try makeOffice("--memory", "1G", "--cpus", "2", "--keyboard-layout", "de")
    var pool = try home.done("pool", "show", "office", "--json").json(PoolDocument.self)
    #expect(pool.kind == "floating")
    #expect(pool.memoryMiB == 1024)
    #expect(pool.cpus == 2)
    #expect(pool.image.kind == "kernel")
    #expect(pool.policies.keyboardLayout == "de")
    #expect(pool.desktops.clean == 2)
    #expect(home.running == ["office-1", "office-2"])
    pool = try home.done("pool", "set", "office", "--spares", "1", "--json").json(PoolDocument.self)
    #expect(pool.spares == 1)
    #expect(pool.size == 3)
    let table = try home.done("pool", "list").output
    #expect(table.hasPrefix("POOL "))
    #expect(table.contains("office  floating"))
    try home.done("pool", "delete", "office")
    #expect(try home.done("pool", "list", "--json").json([PoolDocument].self).isEmpty)
    #expect(home.running.isEmpty)
  }

  @Test("a pool's machines have the parts that are asked for, and show them")
  func hardware() throws {
    try prepareImages()
    try home.done(
      "pool", "create", "study", "--image", "even.raw", "--firmware", "uefi", "--video",
      "virtio,outputs=2", "--network", "user", "--network-queues", "4", "--audio", "virtio",
      "--usb", "on", "--disk-bus", "virtio")
    var hardware = try home.done("pool", "show", "study", "--json").json(PoolDocument.self).hardware
    #expect(hardware.firmware == "uefi" && hardware.video == "virtio,outputs=2")
    #expect(hardware.network == "user" && hardware.networkQueues == 4)
    #expect(hardware.audio == "virtio")
    #expect(hardware.usb == true && hardware.diskBus == "virtio")
    let shown = try home.done("pool", "show", "study").output
    for line in [
      "firmware: uefi", "video: virtio,outputs=2", "network: user", "audio: virtio", "usb: on",
      "disk bus: virtio", "network queues: 4",
    ] {
      let words = line.split(separator: ":").map { $0.trimmingCharacters(in: .whitespaces) }
      #expect(
        shown.split(separator: "\n").contains {
          $0.hasPrefix(words[0]) && $0.hasSuffix(" " + words[1])
        }, "\(shown)")
    }
    hardware = try home.done(
      "pool", "set", "study", "--usb", "off", "--network", "user,host=on", "--json"
    ).json(PoolDocument.self).hardware
    #expect(hardware.usb == false && hardware.network == "user,host=on")
    #expect(hardware.networkQueues == 4)
    hardware = try home.done("pool", "set", "study", "--network-queues", "1", "--json")
      .json(PoolDocument.self).hardware
    #expect(hardware.networkQueues == 1 && hardware.network == "user,host=on")
    #expect(hardware.firmware == "uefi" && hardware.video == "virtio,outputs=2")
    try makeOffice()
    hardware = try home.done("pool", "show", "office", "--json").json(PoolDocument.self).hardware
    #expect(hardware.firmware == "bios" && hardware.network == "none" && hardware.usb == false)
    #expect(hardware.networkQueues == 1)
  }

  @Test("the disks of a pool's desktops are limited, changed and freed again")
  func diskLimits() throws {
    try prepareImages()
    try home.done(
      "pool", "create", "study", "--image", "even.raw", "--disk-iops", "500",
      "--disk-iops-burst", "2000", "--disk-bandwidth", "50M/s")
    func policies(_ words: String...) throws -> PolicyDocument {
      let result = try home.run("carrel", words + ["--json"])
      try #require(result.code == 0, "\(result.errors)")
      return try result.json(PoolDocument.self).policies
    }
    var shown = try policies("pool", "show", "study")
    #expect(shown.diskIops == 500 && shown.diskIopsBurst == 2000)
    #expect(shown.diskBandwidth == 50 << 20 && shown.diskBandwidthBurst == 0)
    let text = try home.done("pool", "show", "study").output
    #expect(
      text.contains("500 operations/s (2000 operations at once), 50 MiB/s\n"), "\(text)")
    let running = home.running
    shown = try policies(
      "pool", "set", "study", "--disk-bandwidth", "1G", "--disk-bandwidth-burst", "3G",
      "--takeover", "refuse")
    #expect(shown.diskBandwidth == 1 << 30 && shown.diskBandwidthBurst == 3 << 30)
    #expect(shown.diskIops == 500 && shown.diskIopsBurst == 2000 && shown.takeover == "refuse")
    #expect(home.running == running, "nobody was replaced")
    shown = try policies("pool", "set", "study", "--disk-iops", "none")
    #expect(shown.diskIops == 0 && shown.diskIopsBurst == 0, "a burst goes with its limit")
    shown = try policies("pool", "set", "study", "--disk-bandwidth", "0", "--spares", "0")
    #expect(shown.diskBandwidth == 0 && shown.diskBandwidthBurst == 0)
    for (option, value, reason) in [
      ("--disk-bandwidth", "50", "invalid for '--disk-bandwidth <size[/s]|none>'"),
      ("--disk-bandwidth", "5T", "invalid for"), ("--disk-iops", "-3", "--disk-iops"),
      ("--disk-iops", "many", "invalid for '--disk-iops <number|none>'"),
      ("--disk-iops-burst", "9", "disk-iops-burst is a burst above disk-iops: give that too"),
      ("--disk-bandwidth", "1K", "disk-bandwidth is 1024 bytes a second: choose 65536"),
    ] {
      let result = try home.run("carrel", ["pool", "set", "study", option, value])
      #expect(result.code != 0 && result.errors.contains(reason), "\(result.errors)")
    }
  }

  @Test("desktops are stopped, started, reset, deleted and photographed")
  func desktops() throws {
    try makeOffice()
    #expect(try home.done("desktop", "stop", "office-1").output == "Desktop office-1 is off.\n")
    #expect(home.running == ["office-2"])
    var desktop = try home.done("desktop", "show", "office-1", "--json").json(DesktopDocument.self)
    #expect(desktop.held)
    desktop = try home.done("desktop", "start", "office-1", "--json").json(DesktopDocument.self)
    #expect(desktop.power == "running")
    #expect(desktop.generation == 2)
    try home.done("desktop", "reset", "office-1")
    try home.done("desktop", "screenshot", "office-1", "--output", home.directory.path("shot.png"))
    #expect(try home.directory.read("shot.png").starts(with: [0x89, 0x50, 0x4E, 0x47]))
    try home.done("desktop", "delete", "office-1")
    let left = try home.done("desktop", "list", "--pool", "office", "--json")
      .json([DesktopDocument].self)
    #expect(!left.map(\.id).contains("office-1"))
  }

  @Test("users are added, changed, entitled, disabled and deleted")
  func users() throws {
    try makeOffice()
    try home.done("user", "add", "alice", "--password-stdin", input: "secret\n")
    try home.done("user", "add", "bob", "--no-password")
    try home.done("user", "passwd", "bob", "--password-stdin", input: "other\n")
    try home.done("entitle", "alice", "office")
    var user = try home.done("user", "show", "alice", "--json").json(UserDocument.self)
    #expect(user.pools == ["office"])
    #expect(user.hasPassword)
    user = try home.done("user", "disable", "alice", "--json").json(UserDocument.self)
    #expect(user.disabled)
    try home.done("user", "enable", "alice")
    try home.done("revoke", "alice", "office")
    try home.done("user", "delete", "alice")
    let users = try home.done("user", "list", "--json").json([UserDocument].self)
    #expect(users.map(\.name) == ["bob"])
  }

  @Test("a password is on no command line, in no answer and not in the database")
  func passwords() throws {
    try home.done("user", "add", "alice", "--password-stdin", input: "Xk7-unmistakable\n")
    let help = try home.done("user", "add", "--help").output
    #expect(!help.contains("--password <"))
    let shown = try home.done("user", "show", "alice", "--json").output
    #expect(!shown.contains("Xk7"))
    daemon.stop()
    let (status, _) = try home.directory.run("grep -r -q Xk7-unmistakable state run")
    #expect(status == 1)
  }

  @Test("a desktop is assigned and released")
  func assign() throws {
    try home.done(
      "pool", "create", "office", "--kind", "manual", "--image", home.image, "--size", "1")
    try home.done("user", "add", "alice", "--no-password")
    let early = try home.carrel("desktop", "assign", "office-1", "alice")
    #expect(early.code == 3)
    #expect(early.errors.contains("'carrel entitle alice office'"))
    try home.done("entitle", "alice", "office")
    let desktop = try home.done("desktop", "assign", "office-1", "alice", "--json")
      .json(DesktopDocument.self)
    #expect(desktop.owner == "alice")
    let refused = try home.carrel("pool", "delete", "office")
    #expect(refused.code == 3)
    #expect(refused.errors.contains("--force"))
    let released = try home.done("desktop", "release", "office-1", "--json")
      .json(DesktopDocument.self)
    #expect(released.owner == nil)
    #expect(released.phase == "clean")
  }

  @Test("a ticket is eight characters, and nobody gets two alike")
  func tickets() throws {
    try home.done("user", "add", "alice", "--no-password")
    let first = try home.done("ticket", "alice").output
    let second = try home.done("ticket", "alice", "--seconds", "5", "--json")
      .json(TicketDocument.self)
    #expect(first.count == 9)
    #expect(second.ticket.count == 8)
    #expect(!first.hasPrefix(second.ticket))
  }

  @Test("a ticket's user is named as at a login, with a pool or an own desktop")
  func ticketPlaces() throws {
    try makeOffice()
    for name in ["alice", "bob"] {
      try home.done("user", "add", name, "--no-password")
      try home.done("entitle", name, "office")
    }
    try home.done("desktop", "assign", "office-1", "alice")
    for place in ["office", "office-1"] {
      let ticket = try home.done("ticket", "alice/\(place)", "--json").json(TicketDocument.self)
      #expect(ticket.user == "alice" && ticket.pool == place)
    }
    for (words, code, reason) in [
      (["alice/nix"], Int32(2), "'carrel pool list'"), (["bob/office-1"], 2, "'carrel pool list'"),
      (["alice/"], 4, "is empty"), (["nix/office"], 2, "'carrel user list'"),
      (["alice/office", "--pool", "office"], 64, "leave out --pool"),
    ] {
      let result = try home.run("carrel", ["ticket"] + words)
      #expect(result.code == code && result.errors.contains(reason), "\(words): \(result.errors)")
    }
    // Whoever has two desktops of a pool is told how to get to the other.
    try home.done("desktop", "assign", "office-2", "alice")
    let now = try home.done("explain", "user", "alice", "--json").json(ExplanationDocument.self).now
    #expect(now.map(\.pool) == [nil, "office", "office-2"])
    #expect(
      now.map(\.text) == ["office-1", "office-1", "office-2"].map { "would return to \($0)" })
  }

  @Test("a kernel that was taken into the library is an image like others")
  func kernelImage() throws {
    _ = try home.directory.write(SmallGuest.sleeping, to: "demo.elf")
    let image = try home.done("image", "import", "demo.elf", "--json")
      .json(LibraryImageDocument.self)
    #expect(image.kind == "kernel" && image.name == "demo")
    try home.done("pool", "create", "lab", "--image", "demo", "--append", "quiet")
    let pool = try home.done("pool", "show", "lab", "--json").json(PoolDocument.self)
    #expect(pool.image.kind == "kernel" && pool.image.path == image.path)
    #expect(try home.done("image", "show", "demo").output.contains("kernel"))
    #expect(try home.carrel("image", "delete", "demo").code == 3)
    try home.done("pool", "delete", "lab")
    try home.done("image", "delete", "demo")
  }

  @Test("explain says what a login would do and why")
  func explain() throws {
    try makeOffice()
    try home.done("user", "add", "alice", "--no-password")
    var now = try home.done("explain", "user", "alice", "--json").json(ExplanationDocument.self).now
    #expect(now.map(\.reason) == ["login-refused-not-entitled"])
    try home.done("entitle", "alice", "office")
    now = try home.done("explain", "user", "alice", "--json").json(ExplanationDocument.self).now
    #expect(now.map(\.reason) == ["login-clean-spare", "login-clean-spare"])
    #expect(now.map(\.pool) == [nil, "office"])
    now = try home.done("explain", "user", "nobody", "--json").json(ExplanationDocument.self).now
    #expect(now.map(\.reason) == ["login-refused-unknown-user"])
  }

  @Test("status and doctor tell how things are")
  func status() throws {
    try makeOffice()
    let status = try home.done("status", "--json").json(StatusDocument.self)
    #expect(status.processID == Int(daemon.processIdentifier))
    #expect(status.pools.map(\.name) == ["office"])
    let report = try home.carrel("doctor", "--json").json(DoctorDocument.self)
    let names = report.checks.map(\.name)
    for name in ["carreld", "KVM", "package seabios", "state directory", "disk"] {
      #expect(names.contains(name))
    }
    for check in report.checks where check.state == .failed {
      #expect(check.remedy != nil, "\(check.name) has no remedy")
    }
  }

  @Test("what is not a terminal gets no colours and no progress")
  func plain() throws {
    try makeOffice()
    for arguments in [["status"], ["desktop", "list"], ["pool", "delete", "office"]] {
      let result = try home.run("carrel", arguments)
      #expect(!result.output.contains("\u{1B}"))
      #expect(result.errors.isEmpty)
    }
  }

  /// Command lines that fail, with exit code and a part of what is said.
  static let failures: [(arguments: [String], code: Int32, says: String)] = [
    (["pool", "show", "nix"], 2, "'carrel pool list'"),
    (["desktop", "show", "nix-1"], 2, "'carrel desktop list'"),
    (["desktop", "stop", "nix-1"], 2, "'carrel desktop list'"),
    (["desktop", "list", "--pool", "nix"], 2, "'carrel pool list'"),
    (["user", "show", "nix"], 2, "'carrel user list'"),
    (["user", "passwd", "nix", "--password-stdin"], 2, "'carrel user list'"),
    (["session", "end", "s9"], 2, "'carrel session list'"),
    (["entitle", "nix", "nix"], 2, "'carrel user list'"),
    (["revoke", "nix", "nix"], 2, "'carrel user list'"),
    (["ticket", "nix"], 2, "'carrel user list'"),
    (["user", "add", "a/b", "--no-password"], 4, "use letters, digits"),
    (["pool", "show", ".."], 4, "use letters, digits"),
    (["pool", "create", "x", "--image", "/nowhere.iso"], 4, "'/nowhere.iso' cannot be found"),
    (["pool", "create", "x", "--image", "/tmp"], 4, "is not a file"),
    (["pool", "create", "x", "--image", "odd.raw"], 4, "multiple of 512"),
    (["pool", "create", "x", "--image", "empty.raw"], 4, "multiple of 512"),
    (["pool", "create", "x", "--image", "cut.elf"], 4, "truncated"),
    (["pool", "create", "x", "--image", "cow.qcow2"], 4, "carrel image import"),
    (["pool", "create", "x", "--image", "odd.raw", "--kind", "magic"], 4, "floating, dedicated"),
    (["pool", "create", "x", "--image", "even.raw", "--size", "0"], 4, "choose 1 to 10000"),
    (
      ["pool", "create", "x", "--image", "even.raw", "--size", "1", "--spares", "2"], 4,
      "choose 0 to 1"
    ),
    (
      ["pool", "create", "x", "--image", "even.raw", "--on-disconnect", "explode"], 4,
      "--on-disconnect cannot be 'explode': choose keep, suspend, end"
    ),
    (
      ["pool", "create", "x", "--image", "even.raw", "--keyboard-layout", "xx"], 4, "en-us, de, fr"
    ),
    (["pool", "create", "x", "--image", "even.raw", "--memory", "much"], 64, "--memory"),
    (["pool", "create", "x", "--image", "even.raw", "--firmware", "coreboot"], 4, "bios, uefi"),
    (["pool", "create", "x", "--image", "even.raw", "--video", "cirrus"], 4, "outputs=1 to 4"),
    (["pool", "create", "x", "--image", "even.raw", "--video", "virtio,outputs=5"], 4, "video"),
    (["pool", "create", "x", "--image", "even.raw", "--network", "bridge"], 4, "tap:PREFIX"),
    (["pool", "create", "x", "--image", "even.raw", "--network", "tap:lan7"], 4, "last no digit"),
    (
      ["pool", "create", "x", "--image", "even.raw", "--network", "user", "--network-queues", "9"],
      4, "network queues is 9: choose 1 to 8"
    ),
    (
      ["pool", "create", "x", "--image", "even.raw", "--network-queues", "2"], 4,
      "give --network, or --network-queues 1"
    ),
    (
      ["pool", "create", "x", "--image", "even.raw", "--network-queues", "some"], 64, "--network-q"
    ),
    (["pool", "create", "x", "--image", "even.raw", "--audio", "sb16"], 4, "ac97, virtio, none"),
    (["pool", "create", "x", "--image", "even.raw", "--disk-bus", "scsi"], 4, "ide, virtio"),
    (["pool", "create", "x", "--image", "even.raw", "--usb", "maybe"], 64, "--usb"),
    (
      ["pool", "create", "x", "--image", "/proc/self/exe", "--firmware", "uefi"], 4,
      "is a kernel, which is started without firmware"
    ),
    (["pool", "create", "x", "--image", "/proc/self/exe", "--disk-bus", "virtio"], 4, "no disk"),
    (["pool", "create", "x"], 64, "--image"),
    (["pool", "set", "x"], 64, "say what is to change, such as --spares"),
    (["pool", "set", "x", "--append", "y"], 64, "name it again with --image"),
    (["user", "add", "alice"], 64, "--password-stdin"),
    (["user", "add", "alice", "--password", "secret"], 64, "--password"),
    (["fly"], 64, "fly"),
  ]

  @Test("what cannot be done is refused with a code, the reason and what to do next")
  func failures() throws {
    try prepareImages()
    for (arguments, code, says) in Self.failures {
      let line = Comment(rawValue: arguments.joined(separator: " "))
      let result = try home.run("carrel", arguments, input: "secret\n")
      #expect(result.code == code, line)
      #expect(result.errors.contains(says), line)
      #expect(result.output.isEmpty, line)
    }
    #expect(try home.done("pool", "list", "--json").json([PoolDocument].self).isEmpty)
    #expect(try home.done("user", "list", "--json").json([UserDocument].self).isEmpty)
  }

  @Test("a request that is too large is refused like any other")
  func oversized() throws {
    let arguments = String(repeating: "x", count: 100_000)
    let result = try home.carrel(
      "pool", "create", "x", "--image", home.image, "--append", arguments)
    #expect(result.code == 4)
    #expect(
      result.errors == "carrel: the body of POST /v1/pools is larger than 64 KiB: send less\n")
  }

  @Test("with --json, errors are JSON too")
  func jsonFailures() throws {
    struct Failure: Decodable {
      let error: String
      let code: Int32
    }
    let result = try home.carrel("pool", "show", "nix", "--json")
    let failure = try JSONDecoder().decode(Failure.self, from: Data(result.errors.utf8))
    #expect(failure.code == 2)
    #expect(failure.error.contains("there is no pool 'nix'"))
  }

  private func prepareImages() throws {
    _ = try home.directory.write([UInt8](repeating: 0, count: 1000), to: "odd.raw")
    _ = try home.directory.write([UInt8](repeating: 0, count: 1024), to: "even.raw")
    _ = try home.directory.write([UInt8](), to: "empty.raw")
    _ = try home.directory.write([UInt8]("QFI\u{0}".utf8.dropLast()) + [0xFB], to: "cow.qcow2")
    let (status, _) = try home.directory.run("head -c 5000 '\(home.image)' > cut.elf")
    #expect(status == 0)
  }

  @Test("things of the same name are refused, and the old ones stay")
  func twice() throws {
    try makeOffice()
    let pool = try home.carrel("pool", "create", "office", "--image", home.image)
    #expect(pool.code == 3)
    #expect(pool.errors.contains("'carrel pool set office'"))
    try home.done("user", "add", "alice", "--password-stdin", input: "one\n")
    let user = try home.carrel("user", "add", "alice", "--password-stdin", input: "two\n")
    #expect(user.code == 3)
    #expect(user.errors.contains("'carrel user passwd alice'"))
  }

  @Test("exit codes and completion are there to be read")
  func help() throws {
    let codes = try home.done("help", "exit-codes").output
    for code in ["0", "2", "3", "4", "5", "6", "7", "64", "69"] {
      #expect(codes.contains("  \(code)"), "code \(code) is not explained")
    }
    for shell in ["bash", "zsh", "fish"] {
      let script = try home.done("--generate-completion-script", shell).output
      #expect(script.contains("entitle"))
    }
  }
}
