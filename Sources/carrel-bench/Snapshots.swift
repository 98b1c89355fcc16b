import CNativeCode
import Foundation
import Glibc
import LinuxSystem

/// A machine of 2 GiB, 1 GiB of it in use, that writes to a tenth of its memory over and over:
/// how long it stands while it is saved in a file, how long that takes in all, and how soon
/// it goes on from there. Beside QEMU, which migrates to and from a file, with its bandwidth
/// unlimited.
func measureSnapshots(_ settings: Settings) throws -> [Comparison] {
  let directory = FileManager.default.temporaryDirectory.appendingPathComponent(
    "carrel-bench-\(getpid())")
  try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: directory) }
  let guest = directory.appendingPathComponent("guest.elf")
  try PVHKernel.elf(BusyGuest.code).write(to: guest)
  var pauses: [Server: Samples] = [:]
  var saves: [Server: Samples] = [:]
  var restores: [Server: Samples] = [:]
  for _ in 0..<max(3, settings.rounds) {
    for server in [Server.carrel, .qemu] {
      let saving = Saving(server, settings, directory: directory, guest: guest.path)
      let (pause, save) = try saving.save()
      pauses[server, default: Samples()].add(pause)
      saves[server, default: Samples()].add(save)
      restores[server, default: Samples()].add(try saving.restore())
    }
  }
  let difference = try measureDifference(settings, directory: directory, guest: guest.path)
  let colds = try measureColdRestores(settings, directory: directory, guest: guest.path)
  let fast = try measureFastWriter(settings, directory: directory)
  func median(_ samples: [Server: Samples], _ server: Server) -> Double {
    samples[server]?.median ?? 0
  }
  return [
    Comparison(
      "snapshot, how long the guest stands (at most 50 ms)", unit: "ms",
      ours: median(pauses, .carrel), bound: 50),
    Comparison(
      "  beside the peer", unit: "ms", ours: median(pauses, .carrel), peer: median(pauses, .qemu)),
    fast,
    Comparison(
      "snapshot, until it is whole", unit: "s", ours: median(saves, .carrel),
      peer: median(saves, .qemu)),
    Comparison(
      "restore, from exec to the guest's next byte", unit: "ms", ours: median(restores, .carrel),
      peer: median(restores, .qemu), bound: 1),
    difference,
  ] + colds
}

/// The longest time that a guest stands which writes to a tenth of its memory over and over, as
/// fast as the processor can.
private func measureFastWriter(_ settings: Settings, directory: URL) throws -> Comparison {
  var code = [UInt8](repeating: 0, count: 4096)
  code.removeLast(code.count - cguest_copy(CGUEST_WRITING, &code, code.count))
  let pages: UInt32 = 52_429
  for index in 0..<4 { code[4 + index] = UInt8(truncatingIfNeeded: pages >> (8 * index)) }
  let guest = directory.appendingPathComponent("writer.elf")
  try PVHKernel.elf(code).write(to: guest)
  let saving = Saving(.carrel, settings, directory: directory, guest: guest.path)
  var longest = 0.0
  for _ in 0..<max(5, settings.rounds) {
    longest = max(longest, try saving.save(after: "....").pause)
  }
  return Comparison(
    "  of one that never stops writing, the longest", unit: "ms", ours: longest, bound: 50)
}

/// How long it takes to save what changed since the machine was saved, as for a second backup.
private func measureDifference(
  _ settings: Settings, directory: URL, guest: String
) throws -> Comparison {
  let saving = Saving(.carrel, settings, directory: directory, guest: guest)
  var (wholes, differences) = (Samples(), Samples())
  for _ in 0..<max(3, settings.rounds) {
    let (whole, difference) = try saving.saveDifference()
    wholes.add(whole)
    differences.add(difference)
  }
  return Comparison(
    "what changed since a snapshot, until it is whole", unit: "s", ours: differences.median,
    peer: wholes.median, bound: 1, note: "the peer is the snapshot before")
}

/// How soon Carrel's machine goes on where nothing of the file is in memory: with all of it
/// checked first, with nothing, and with what the guest touched the last time.
private func measureColdRestores(
  _ settings: Settings, directory: URL, guest: String
) throws -> [Comparison] {
  let saving = Saving(.carrel, settings, directory: directory, guest: guest)
  var (all, none, first) = (Samples(), Samples(), Samples())
  for _ in 0..<max(3, settings.rounds) {
    _ = try saving.save()
    all.add(try saving.restore(isCold: true))
    none.add(try saving.restore(isCold: true, options: ",check=first"))
    try saving.recordWorkingSet()
    first.add(try saving.restore(isCold: true, options: ",check=first"))
  }
  return [
    Comparison(
      "restore from a cold file, checking first what is needed", unit: "ms",
      ours: first.median, peer: all.median, bound: 1, note: "the peer checks all before"),
    Comparison(
      "  without knowing what that is", unit: "ms", ours: none.median, peer: all.median),
  ]
}

/// One server's machine, its file and its control socket.
private struct Saving {
  private let server: Server
  private let settings: Settings
  private let control: String
  private let file: String
  private let guest: String

  init(_ server: Server, _ settings: Settings, directory: URL, guest: String) {
    self.server = server
    self.settings = settings
    self.guest = guest
    control = directory.appendingPathComponent("control").path
    file = directory.appendingPathComponent("saved").path
  }

  private func command(restoring: Bool, options: String = "") -> [String] {
    switch server {
    case .carrel, .site:
      [
        settings.vmm, "run", "--memory", "2G", "--kernel", guest, "--vga", "none", "--serial",
        "stdio", "--control", control,
      ] + (restoring ? ["--restore", file + options] : [])
    case .qemu:
      [
        "qemu-system-x86_64", "-machine", "pc,accel=kvm", "-m", "2048", "-kernel", guest,
        "-nodefaults", "-display", "none", "-serial", "stdio", "-qmp",
        "unix:\(control),server=on,wait=off",
      ] + (restoring ? ["-incoming", "exec:cat \(file)"] : [])
    }
  }

  private func start(restoring: Bool, options: String = "") throws -> Subject {
    try? FileManager.default.removeItem(atPath: control)
    return try Subject(name: server.title, command(restoring: restoring, options: options))
  }

  /// Milliseconds that the guest stood, and seconds until the file was whole.
  ///
  /// - Parameter output: of the guest when it is at work.
  func save(after output: String = "+..") throws -> (pause: Double, seconds: Double) {
    let subject = try start(restoring: false)
    defer { subject.stop() }
    try subject.awaitOutput(containing: output, seconds: 60)
    let monitor = try Monitor(control)
    let start = Clock.seconds
    switch server {
    case .carrel, .site:
      try monitor.execute("carrel-save", ["path": file])
      try monitor.awaitEvent("CARREL_SAVE_STATUS", done: "completed", failed: "failed")
      let end = try monitor.execute("query-carrel-save")
      return ((end["downtime"] as? Double ?? 0) / 1000, Clock.seconds - start)
    case .qemu:
      try monitor.execute(
        "migrate-set-capabilities",
        ["capabilities": [["capability": "events", "state": true]]])
      try monitor.execute("migrate-set-parameters", ["max-bandwidth": 1 << 40])
      try monitor.execute("migrate", ["uri": "exec:cat > \(file)"])
      try monitor.awaitEvent("MIGRATION", done: "completed", failed: "failed")
      let end = try monitor.execute("query-migrate")
      return (end["downtime"] as? Double ?? 0, Clock.seconds - start)
    }
  }

  /// Seconds until the file was whole, and then until that of what was written since was.
  func saveDifference() throws -> (whole: Double, difference: Double) {
    let subject = try start(restoring: false)
    defer { subject.stop() }
    try subject.awaitOutput(containing: "+..", seconds: 60)
    let monitor = try Monitor(control)
    func save(_ arguments: [String: Any]) throws -> Double {
      let start = Clock.seconds
      try monitor.execute("carrel-save", arguments)
      try monitor.awaitEvent("CARREL_SAVE_STATUS", done: "completed", failed: "failed")
      return Clock.seconds - start
    }
    let base = UUID().uuidString.lowercased()
    let whole = try save(["path": file, "id": base])
    let difference = try save(["path": file + ".difference", "base": base])
    let state = try monitor.execute("query-carrel-save")
    guard state["differential"] as? Bool == true else {
      throw BenchError("the machine was saved whole again")
    }
    try FileManager.default.removeItem(atPath: file + ".difference")
    return (whole, difference)
  }

  /// Has the machine go on, and what it touched noted, which is done before it is saved.
  func recordWorkingSet() throws {
    let subject = try start(restoring: true, options: ",check=first")
    defer { subject.stop() }
    try subject.awaitOutput(containing: ".", seconds: 60)
    let monitor = try Monitor(control)
    try monitor.execute("carrel-save", ["path": file + ".again"])
    try monitor.awaitEvent("CARREL_SAVE_STATUS", done: "completed", failed: "failed")
    try FileManager.default.removeItem(atPath: file + ".again")
  }

  /// Milliseconds until the guest has written again.
  func restore(isCold: Bool = false, options: String = "") throws -> Double {
    if isCold {
      let descriptor = try FileDescriptor.open(file)
      try descriptor.synchronize()
      guard posix_fadvise(descriptor.raw, 0, 0, POSIX_FADV_DONTNEED) == 0 else {
        throw BenchError("the file cannot be taken out of the page cache")
      }
    }
    let start = Clock.seconds
    let subject = try self.start(restoring: true, options: options)
    defer { subject.stop() }
    return (try subject.awaitOutput(containing: ".", seconds: 60) - start) * 1000
  }
}

/// A kernel with a PVH entry, which both servers start in 32-bit mode.
private enum BusyGuest {
  static var code: [UInt8] {
    func word(_ value: UInt32) -> [UInt8] {
      (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
    var code: [UInt8] = []
    // mov edi, 16 MiB; mov ecx, pages of 1 GiB
    code += [0xBF] + word(16 << 20) + [0xB9] + word(262_144)
    // mov [edi], edi; add edi, 4096; dec ecx; jnz
    code += [0x89, 0x3F, 0x81, 0xC7] + word(4096) + [0x49, 0x75, 0xF5]
    // mov edx, COM1; mov al, '+'; out dx, al
    code += [0xBA] + word(0x3F8) + [0xB0, 0x2B, 0xEE]
    let loop = code.count
    // mov edi, 256 MiB; mov ecx, a tenth of 2 GiB
    code += [0xBF] + word(256 << 20) + [0xB9] + word(52_429)
    // inc dword [edi]; add edi, 4096; dec ecx; jnz
    code += [0xFF, 0x07, 0x81, 0xC7] + word(4096) + [0x49, 0x75, 0xF5]
    // mov al, '.'; out dx, al; jmp
    code += [0xB0, 0x2E, 0xEE, 0xEB]
    code.append(UInt8(truncatingIfNeeded: loop - code.count - 1))
    return code
  }
}
