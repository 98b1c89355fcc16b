import Disk
import LinuxSystem
import Machine
import QMP
import TestSupport
import Testing

/// A running guest that counts on a disk.
final class CountingProgram {
  typealias Bus = MachineConfiguration.Disk.Bus

  let directory: TemporaryDirectory
  let bus: Bus
  let format: ImageFormat
  private(set) var running: RunningProgram
  private var starts = 0

  /// - Parameter options: besides the disk.
  init(
    _ bus: Bus, _ format: ImageFormat, _ options: [String] = [], size: String = "1M",
    in directory: TemporaryDirectory? = nil
  ) throws {
    let directory = try directory ?? TemporaryDirectory()
    (self.directory, self.bus, self.format) = (directory, bus, format)
    try Self.shell("qemu-img create -q -f \(format) disk \(size)", in: directory)
    running = try Self.start("disk", format, bus, options, "serial0", directory)
  }

  private static func start(
    _ disk: String, _ format: ImageFormat, _ bus: Bus, _ options: [String], _ serial: String,
    _ directory: TemporaryDirectory
  ) throws -> RunningProgram {
    try RunningProgram(
      CountingGuest.program(bus),
      [
        "--vga", "none", "--serial", "@/\(serial)", "--disk",
        "@/\(disk),format=\(format),bus=\(bus == .ide ? "ide" : "virtio")",
      ] + options, in: directory)
  }

  @discardableResult
  static func shell(_ command: String, in directory: TemporaryDirectory) throws -> String {
    let (status, output) = try directory.run(command)
    try #require(status == 0, "\(command): \(status): \(output)")
    return output
  }

  @discardableResult
  func shell(_ command: String) throws -> String { try Self.shell(command, in: directory) }

  /// Kills it as a crash does.
  func kill() throws {
    try running.process.handle.send(.kill)
    _ = try running.process.wait()
  }

  /// Goes on from a saved machine with a disk.
  func restore(_ disk: String, from path: String = "saved") throws {
    starts += 1
    running = try Self.start(
      disk, .qcow2, bus, ["--restore", directory.path(path)], "serial\(starts)", directory)
  }

  var drive: String { bus == .ide ? "ide0-hd0" : "virtio0" }
  var serial: String { running.text("serial\(starts)") }

  /// Waits until the guest has been around all sectors so many times more, or ended.
  func awaitTurns(_ count: Int) throws {
    let before = serial.count
    try eventually("the guest to count on") {
      let text = serial
      return text.count >= before + count || text.contains { $0 != "." }
    }
  }

  /// Saves it with an overlay, and returns what became of that.
  func save(_ control: ControlClient, overlay: String, path: String = "saved") throws -> JSON {
    try control.execute(
      "carrel-save",
      [
        "path": .string(directory.path(path)),
        "overlays": [["device": .string(drive), "file": .string(directory.path(overlay))]],
      ])
    return try awaitEnd(control)
  }

  func awaitEnd(_ control: ControlClient) throws -> JSON {
    while true {
      let event = try control.nextEvent()
      if event.name == "CARREL_SAVE_STATUS", event.data?["status"]?.text != "active" {
        return try #require(event.data)
      }
    }
  }
}

@Suite("Disks that go over to overlays", .needsKVM, .needs("qemu-img", "qemu-io"))
struct OverlayTests {
  private static let kinds: [(CountingProgram.Bus, ImageFormat)] = [
    (.ide, .raw), (.ide, .qcow2), (.virtio, .raw), (.virtio, .qcow2),
  ]

  @Test("a machine goes on from its memory and the disk of that instant", arguments: kinds)
  func restored(bus: CountingProgram.Bus, format: ImageFormat) throws {
    let guest = try CountingProgram(bus, format)
    try guest.awaitTurns(2)
    let control = try guest.running.control()
    let end = try guest.save(control, overlay: "one")
    #expect(end["status"] == "completed" && end["switched"] == true, "\(end)")
    let frozen = try guest.directory.read("disk")
    let number = try #require(
      CountingGuest.lastNumber(on: try contents(ofFrozen: "disk", format, guest)))
    #expect(number >= 2 * CountingGuest.sectors)
    try guest.awaitTurns(3)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    try checkBlockInformation(guest, control)
    try checkLocks(guest)
    try guest.kill()
    #expect(try guest.directory.read("disk") == frozen, "nothing is written to it any more")
    if format == .qcow2 { try guest.shell("qemu-img check -q -f qcow2 disk") }
    // Of what was not flushed, some room may be lost.
    try guest.shell("qemu-img check -q -f qcow2 one || test $? = 3")
    let chain = try guest.shell("qemu-img info --backing-chain -f qcow2 one")
    #expect(chain.contains("backing file: disk") && chain.contains("image: disk\n"), "\(chain)")

    let create = "qemu-img create -q -f qcow2 -b disk -F \(format)"
    try guest.shell("\(create) two && \(create) three")
    try guest.restore("two")
    try guest.awaitTurns(3)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    try guest.kill()
    #expect(try guest.directory.read("disk") == frozen)
    // With any other disk the guest would have noticed.
    try guest.shell("qemu-io -f qcow2 -c 'write -q -P 1 8192 512' three")
    try guest.restore("three")
    try guest.awaitTurns(3)
    #expect(guest.serial.contains("!"), "\(guest.serial)")
  }

  private func contents(
    of name: String, _ format: ImageFormat, _ guest: CountingProgram
  ) throws -> [UInt8] {
    try guest.shell("rm -f out && qemu-img convert -f \(format) -O raw \(name) out")
    return try guest.directory.read("out")
  }

  /// Of an image that needs no other, while the VMM has it: QEMU's programs want it to
  /// themselves even for reading.
  private func contents(
    ofFrozen name: String, _ format: ImageFormat, _ guest: CountingProgram
  ) throws -> [UInt8] {
    try guest.shell("cp \(name) copy")
    if format == .qcow2 { try guest.shell("qemu-img check -q -f qcow2 copy") }
    return try contents(of: "copy", format, guest)
  }

  private func checkBlockInformation(_ guest: CountingProgram, _ control: ControlClient) throws {
    let list = try control.execute("query-block").elements
    let inserted = list?.first { $0["device"]?.text == guest.drive }?["inserted"]
    #expect(inserted?["file"]?.text == guest.directory.path("one"))
    #expect(inserted?["drv"] == "qcow2" && inserted?["backing_file_depth"] == 1)
    #expect(inserted?["backing_file"]?.text == guest.directory.path("disk"))
    let base = inserted?["image"]?["backing-image"]
    #expect(base?["format"]?.text == guest.format.rawValue && base?["virtual-size"] == 1_048_576)
  }

  /// The old image may be read by others and written by nobody, the new one neither.
  private func checkLocks(_ guest: CountingProgram) throws {
    func lock(_ name: String, exclusive: Bool) throws(SystemError) {
      let file = try FileDescriptor.open(guest.directory.path(name), .writable)
      try file.lock(exclusive: exclusive)
    }
    for (name, exclusive) in [("disk", true), ("one", true), ("one", false)] {
      let error = #expect(throws: SystemError.self) { try lock(name, exclusive: exclusive) }
      #expect(error?.kind == .wouldBlock)
    }
    #expect(throws: Never.self) { try lock("disk", exclusive: false) }
  }

  @Test("a save that holds takes the instant when it is told to, and not before")
  func hold() throws {
    let guest = try CountingProgram(.virtio, .qcow2)
    try guest.awaitTurns(1)
    let control = try guest.running.control()
    let problem = #expect(throws: QMPError.self) { try control.execute("carrel-save-continue") }
    #expect(problem?.description.contains("No save holds") == true)
    try control.execute(
      "carrel-save",
      [
        "path": .string(guest.directory.path("saved")), "hold": true,
        "overlays": [
          ["device": "virtio0", "file": .string(guest.directory.path("overlay"))]
        ],
      ])
    func status() throws -> JSON {
      while true {
        let event = try control.nextEvent()
        if event.name == "CARREL_SAVE_STATUS", let data = event.data { return data }
      }
    }
    let holding = try status()
    #expect(holding["status"]?.text == "holding" && holding["taken"]?.truth == false)
    #expect(holding["switched"]?.truth == false)
    // The guest runs on, with its disk as it was.
    try guest.awaitTurns(2)
    #expect(try control.execute("query-carrel-save")["status"]?.text == "holding")
    try control.execute("carrel-save-continue")
    var next = try status()
    while next["taken"]?.truth != true { next = try status() }
    #expect(next["switched"]?.truth == true)
    while next["status"]?.text == "active" { next = try status() }
    #expect(next["status"]?.text == "completed")
  }

  @Test("one disk alone goes over to an overlay, until there are too many of them")
  func chain() throws {
    let guest = try CountingProgram(.virtio, .raw)
    let control = try guest.running.control()
    func switchDisk(_ name: String, _ more: [String: JSON] = [:]) throws {
      let arguments: [String: JSON] = [
        "device": .string(guest.drive), "snapshot-file": .string(guest.directory.path(name)),
      ]
      try control.execute("blockdev-snapshot-sync", .object(arguments.merging(more) { $1 }))
    }
    for more: [String: JSON] in [["mode": "existing"], ["format": "raw"]] {
      #expect(throws: QMPError.self) { try switchDisk("refused", more) }
    }
    #expect(!Files.exists(guest.directory.path("refused")))
    for number in 2...BackingPolicy.mostLayers {
      try switchDisk("layer\(number)", number == 2 ? ["format": "qcow2"] : [:])
    }
    let error = #expect(throws: QMPError.self) { try switchDisk("refused") }
    #expect(error?.context.contains("has 64 layers") == true, "\(String(describing: error))")
    #expect(error?.context.contains("flatten it") == true)
    #expect(!Files.exists(guest.directory.path("refused")))
    try guest.awaitTurns(2)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    try guest.kill()
    // virtio without FLUSH: every write that the guest knows of is durable.
    let last = CountingGuest.lastNumber(
      on: try contents(of: "layer\(BackingPolicy.mostLayers)", .qcow2, guest))
    #expect(try #require(last) >= guest.serial.count * CountingGuest.sectors)
    let disk = "@/layer\(BackingPolicy.mostLayers),format=qcow2"
    let again = try RunningProgram(nil, ["--vga", "none", "--disk", disk], in: guest.directory)
    #expect(try again.control().execute("query-status")["running"] == true)
  }

  @Test("a disk takes in the images under it while the guest counts on", arguments: kinds)
  func streamed(bus: CountingProgram.Bus, format: ImageFormat) throws {
    let guest = try CountingProgram(bus, format, size: "16M")
    let control = try guest.running.control()
    func overlay(_ name: String) throws {
      try control.execute(
        "blockdev-snapshot-sync",
        [
          "device": .string(guest.drive), "snapshot-file": .string(guest.directory.path(name)),
        ])
      try guest.awaitTurns(1)
    }
    func end() throws -> (String, JSON?) {
      while true {
        let event = try control.nextEvent()
        if event.name.hasPrefix("BLOCK_JOB") { return (event.name, event.data) }
      }
    }
    func layers() throws -> [String] {
      let image = try control.execute("query-block").elements?
        .first { $0["device"]?.text == guest.drive }?["inserted"]?["image"]
      var names: [String] = []
      var next = image
      while let current = next {
        names.append(
          (current["filename"]?.text ?? "").replacing(guest.directory.path(""), with: ""))
        next = current["backing-image"]
      }
      return names
    }
    for name in ["one", "two", "three"] { try overlay(name) }
    #expect(try layers() == ["three", "two", "one", "disk"])
    // So slow that it can be stopped: a raw image says all of what is read.
    let slowly: JSON = ["device": .string(guest.drive), "job-id": "slow", "speed": 1]
    if format == .raw {
      try control.execute("block-stream", slowly)
      let refusal = #expect(throws: QMPError.self) { try control.execute("block-stream", slowly) }
      #expect(refusal?.context.contains("already in use") == true)
      #expect(try control.execute("query-block-jobs").elements?.first?["device"] == "slow")
      try control.execute("block-job-cancel", ["device": "slow"])
      #expect(try end().0 == "BLOCK_JOB_CANCELLED")
    }
    for (device, base, text) in [
      ("virtio7", "disk", "virtio7"), (guest.drive, "none", "not based on"),
      (guest.drive, "two", "nothing between"),
    ] {
      let error = #expect(throws: QMPError.self) {
        try control.execute(
          "block-stream",
          ["device": .string(device), "base": .string(guest.directory.path(base))])
      }
      #expect(error?.context.contains(text) == true, "\(String(describing: error))")
    }
    #expect(try control.execute("query-block-jobs").elements == [])
    #expect(try layers() == ["three", "two", "one", "disk"])
    let base = guest.directory.path("disk")
    try control.execute("block-stream", ["device": .string(guest.drive), "base": .string(base)])
    let completed = try end()
    #expect(completed.0 == "BLOCK_JOB_COMPLETED" && completed.1?["error"] == nil, "\(completed)")
    #expect(completed.1?["offset"] == completed.1?["len"])
    #expect(try layers() == ["three", "disk"])
    try guest.shell("rm one two")
    try guest.awaitTurns(1)
    // One that goes over to an overlay has nothing to take in any more.
    if format == .raw {
      try control.execute("block-stream", slowly)
      try eventually("the job to wait") {
        let job = try control.execute("query-block-jobs").elements?.first
        return job?["offset"]?.whole ?? 0 >= 1 << 20
      }
    }
    try overlay("four")
    if format == .raw {
      try control.execute("block-job-set-speed", ["device": "slow", "speed": 0])
      #expect(try end().1?["error"]?.text?.contains("another image") == true)
    }
    try control.execute("block-stream", ["device": .string(guest.drive)])
    let last = try end()
    #expect(last.0 == "BLOCK_JOB_COMPLETED" && last.1?["error"] == nil, "\(last)")
    #expect(try layers() == ["four"])
    try guest.shell("rm disk three")
    try guest.awaitTurns(2)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    let known = guest.serial.count * CountingGuest.sectors
    try guest.kill()
    try guest.shell("qemu-img check -q -f qcow2 four || test $? = 3")
    let number = CountingGuest.lastNumber(on: try contents(of: "four", .qcow2, guest))
    #expect(try #require(number) >= (bus == .virtio ? known : 1))
  }

  @Test("what cannot be is refused, and the machine goes on with its disks")
  func refused() throws {
    let directory = try TemporaryDirectory()
    try directory.write([UInt8](repeating: 0, count: 4096), to: "a.iso")
    try directory.write([UInt8](repeating: 0, count: 4096), to: "fixed")
    try directory.write([1], to: "there")
    let guest = try CountingProgram(
      .ide, .raw, ["--cdrom", "@/a.iso", "--disk", "@/fixed,bus=virtio,readonly=on"],
      in: directory)
    let control = try guest.running.control()
    func save(_ overlays: [(String, String)], _ more: [String: JSON] = [:]) throws -> String {
      let list = overlays.map { device, file -> JSON in
        ["device": .string(device), "file": .string(file)]
      }
      let arguments: [String: JSON] = [
        "path": .string(directory.path("saved")), "overlays": .array(list),
      ]
      do {
        try control.execute("carrel-save", .object(arguments.merging(more) { $1 }))
      } catch let error as QMPError {
        return error.context
      }
      let end = try guest.awaitEnd(control)
      #expect(end["status"] == "failed" && end["switched"] == false, "\(end)")
      return end["error"]?.text ?? ""
    }
    let new = directory.path("new")
    let refusals: [(String, [(String, String)], [String: JSON])] = [
      ("there is a file", [(guest.drive, directory.path("there"))], [:]),
      ("there is no disk ide0-hd3", [("ide0-hd3", new)], [:]),
      ("is a CD-ROM drive", [("ide1-cd0", new)], [:]),
      ("read-only", [("virtio0", new)], [:]),
      ("read-only", [(guest.drive, new), ("virtio0", directory.path("newer"))], [:]),
      ("a device or file twice", [(guest.drive, new), (guest.drive, new + "er")], [:]),
      ("a device or file twice", [(guest.drive, new), ("virtio0", new)], [:]),
      ("absolute", [(guest.drive, "new")], [:]),
      ("'suspend' ends it", [(guest.drive, new)], ["suspend": true]),
      ("cannot make", [(guest.drive, new)], ["path": .string(directory.path("none/saved"))]),
      ("directory", [(guest.drive, directory.path("none/new"))], [:]),
    ]
    for (text, overlays, more) in refusals {
      let error = try save(overlays, more)
      #expect(error.contains(text), "\(error)")
    }
    for name in ["new", "newer", "saved", "saved.new"] {
      #expect(!Files.exists(directory.path(name)), "\(name)")
    }
    #expect(try directory.read("there") == [1])
    try guest.awaitTurns(2)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    let list = try control.execute("query-block").elements
    #expect(list?.first?["inserted"]?["file"]?.text == directory.path("disk"))
  }

  @Test(
    "a full disk takes the overlay back, or leaves it when memory was to be written", .needsRoot)
  func fullDisk() throws {
    let guest = try CountingProgram(.virtio, .qcow2)
    let control = try guest.running.control()
    let small = try SmallDisk(kibibytes: 64)
    try small.fill()
    func save(_ overlay: String, _ path: String) throws -> JSON {
      try control.execute(
        "carrel-save",
        [
          "path": .string(path),
          "overlays": [["device": .string(guest.drive), "file": .string(overlay)]],
        ])
      return try guest.awaitEnd(control)
    }
    let first = try save("\(small.path)/one", guest.directory.path("saved"))
    #expect(first["status"] == "failed" && first["switched"] == false, "\(first)")
    #expect(!Files.exists("\(small.path)/one") && !Files.exists(guest.directory.path("saved")))
    try guest.awaitTurns(2)
    // So little memory is written when the disk has its overlay already.
    let second = try save(guest.directory.path("one"), "\(small.path)/saved")
    #expect(second["status"] == "failed" && second["switched"] == true, "\(second)")
    #expect(second["error"]?.text?.contains("on their overlays") == true)
    #expect(try control.execute("query-carrel-save") == second)
    #expect(!Files.exists("\(small.path)/saved"))
    let frozen = try guest.directory.read("disk")
    try guest.awaitTurns(2)
    #expect(guest.serial.allSatisfy { $0 == "." }, "\(guest.serial)")
    #expect(try guest.directory.read("disk") == frozen)
    #expect(CountingGuest.lastNumber(on: try contents(ofFrozen: "disk", .qcow2, guest)) != nil)
    let inserted = try control.execute("query-block").elements?.first?["inserted"]
    #expect(inserted?["file"]?.text == guest.directory.path("one"))
  }

  @Test("killed at any time, what was flushed is there, in the image or under the overlay")
  func killed() throws {
    for (turn, format) in [ImageFormat.raw, .qcow2, .raw, .qcow2, .qcow2, .qcow2].enumerated() {
      let guest = try CountingProgram(.virtio, format)
      try guest.awaitTurns(1)
      let control = try guest.running.control()
      let overlay = guest.directory.path("one")
      try control.execute(
        "carrel-save",
        [
          "path": .string(guest.directory.path("saved")),
          "overlays": [["device": .string(guest.drive), "file": .string(overlay)]],
        ])
      switch turn {
      case 0, 1: try eventually("the overlay to be made") { Files.exists(overlay) }
      case 2, 3:
        try eventually("the switch") {
          try control.execute("query-carrel-save")["switched"] == true
        }
      case 4: break
      default: try guest.awaitTurns(1)
      }
      try guest.kill()
      let known = guest.serial.count * CountingGuest.sectors
      // At no time is it wrong to go on with the overlay where there is one.
      let exists = Files.exists(overlay)
      if exists { try guest.shell("qemu-img check -q -f qcow2 one || test $? = 3") }
      if format == .qcow2 { try guest.shell("qemu-img check -q -f qcow2 disk || test $? = 3") }
      let disk = try contents(of: exists ? "one" : "disk", exists ? .qcow2 : format, guest)
      let last = try #require(CountingGuest.lastNumber(on: disk), "turn \(turn)")
      #expect(last >= known, "turn \(turn)")
    }
  }
}
