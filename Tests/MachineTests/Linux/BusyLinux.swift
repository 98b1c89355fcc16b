import LinuxSystem
import QMP
import TestSupport
import Testing

/// The small Linux in a process of its own, which writes to two disks without a pause and
/// compares one of them with what it holds in memory, turn by turn: a dot for each that was
/// right.
final class BusyLinux {
  static let disks = [(name: "ide", drive: "ide0-hd0"), (name: "virtio", drive: "virtio0")]

  /// What it does: one disk is written over and over, so that requests are always under way;
  /// the other has what memory has, and is read back with nothing of it in the cache.
  private static let work = """
    dd if=/dev/urandom of=/tmp/truth bs=64k count=16 2>/dev/null; \
    dd if=/tmp/truth of=/dev/vda bs=64k conv=fsync 2>/dev/null; \
    (while :; do dd if=/tmp/truth of=/dev/sda bs=16k conv=fsync 2>/dev/null; done) & \
    while :; do at=$((RANDOM % 250)); \
    dd if=/dev/urandom of=/tmp/part bs=4k count=5 2>/dev/null; \
    for f in /tmp/truth /dev/vda; do \
    dd if=/tmp/part of=$f bs=4k seek=$at conv=notrunc 2>/dev/null; done; \
    sync; echo 3 >/proc/sys/vm/drop_caches; \
    if cmp -s /tmp/truth /dev/vda; then echo .; else echo '!'; fi; done
    """

  let directory: TemporaryDirectory
  private(set) var running: RunningProgram
  /// The disks' images.
  private(set) var layers = ["ide", "virtio"]
  private var starts = 0

  init() throws {
    let directory = try TemporaryDirectory()
    self.directory = directory
    for layer in layers {
      try CountingProgram.shell("qemu-img create -q -f qcow2 \(layer) 1M", in: directory)
    }
    running = try Self.start(layers, ["--serial", "unix:@/serial"], directory)
    let line = try UnixSocket.connect(
      to: directory.path("serial"), kind: .stream, offeredBy: running.process.handle)
    var text: [UInt8] = []
    func hear(_ end: String) throws {
      while !text.contains(Array(end.utf8)) {
        let received = try line.receive()
        try #require(!received.isEnd, "\(running.errors)")
        text += received.bytes
      }
    }
    try hear("guest: ready\n")
    try line.descriptor.writeAll(Array("\(Self.work)\n".utf8))
    try hear("\n.\n.\n")
  }

  private static func start(
    _ layers: [String], _ options: [String], _ directory: TemporaryDirectory
  ) throws -> RunningProgram {
    let built = "build/guest-linux/current"
    return try RunningProgram(
      nil,
      [
        "--memory", "256M", "--kernel", "\(built)/vmlinux", "--initrd", "\(built)/initramfs",
        "--append", String(decoding: try Files.read("\(built)/append"), as: UTF8.self), "--disk",
        "@/\(layers[0]),format=qcow2", "--disk", "@/\(layers[1]),format=qcow2,bus=virtio",
      ] + options, in: directory)
  }

  private var dots: String { running.text("dots\(starts)") }

  /// Waits for turns, each of which is right.
  func awaitTurns(_ count: Int) throws {
    let before = dots.count
    try eventually("turns", seconds: 300) {
      dots.count >= before + 2 * count || dots.contains("!")
    }
    #expect(dots.allSatisfy { $0 == "." || $0 == "\n" }, "\(dots)")
  }

  func kill() throws {
    try running.process.handle.send(.kill)
    _ = try running.process.wait()
    // Of what was under way, some room may be lost.
    for layer in layers { try shell("qemu-img check -q -f qcow2 \(layer) || test $? = 3") }
  }

  /// Saves it while it runs: its disks go over to overlays at that instant.
  func save(_ path: String) throws {
    let control = try running.control()
    let overlays = Self.disks.map { disk -> JSON in
      [
        "device": .string(disk.drive),
        "file": .string(directory.path("\(path).\(disk.name)")),
      ]
    }
    try control.execute(
      "carrel-save", ["path": .string(directory.path(path)), "overlays": .array(overlays)])
    var end: JSON?
    while end == nil {
      let event = try control.nextEvent()
      guard event.name == "CARREL_SAVE_STATUS", event.data?["status"]?.text != "active" else {
        continue
      }
      end = event.data
    }
    #expect(end?["status"] == "completed" && end?["switched"] == true, "\(String(describing: end))")
    layers = Self.disks.map { "\(path).\($0.name)" }
  }

  /// Ends it with its state in a file.
  func suspend(_ path: String) throws {
    try running.control().execute(
      "carrel-save", ["path": .string(directory.path(path)), "suspend": true])
    #expect(try running.process.wait() == .exited(0))
    for layer in layers { try shell("qemu-img check -q -f qcow2 \(layer)") }
  }

  /// Goes on from a saved state with new overlays over the disks of that instant.
  func goOn(from path: String, over bases: [String]) throws {
    let names = bases.map { "\($0).\(starts)" }
    for (base, name) in zip(bases, names) {
      try shell("\(Programs.built("carrel-vmm")) disk create --over qcow2:\(base) \(name)")
    }
    layers = names
    try goOn(from: path)
  }

  /// Goes on with the disks that it has.
  func goOn(from path: String) throws {
    starts += 1
    running = try Self.start(
      layers, ["--serial", "@/dots\(starts)", "--restore", directory.path(path)], directory)
  }

  @discardableResult
  func shell(_ command: String) throws -> String {
    try CountingProgram.shell("cd \(directory.path) && \(command)", in: directory)
  }
}
