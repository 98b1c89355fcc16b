import Glibc
import LinuxSystem
import Machine
import Snapshot
import TestSupport
import Testing

/// Machines that were saved by this Carrel and by earlier ones, which stay readable. Of each
/// version of the container there is one: `machine-1`, and `machine-2`, which completes it.
@Suite("Machines that an earlier Carrel saved", .needsKVM, .needs("gzip"))
struct CorpusTests {
  private static let corpus = "\(Programs.repository)/Tests/MachineTests/Corpus"
  /// Where they are to be written, instead: for one of a new version.
  private static let target = getenv("CARREL_WRITE_CORPUS").map { String(cString: $0) }
  private static let identifiers = (1...2).map { number in
    [UInt8](repeating: UInt8(number), count: 16)
  }

  private static let steps: UInt32 = 500_000

  /// What the guest comes to, wherever it is interrupted.
  private static var result: [UInt8] {
    var (number, sum): (UInt32, UInt32) = (1, 0)
    for _ in 0..<steps {
      number = number &* 1_664_525 &+ 1
      sum &+= number
    }
    return (0..<4).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) }
  }

  /// A PC of 4 MiB with all that desktops have but a picture, which would make the file large.
  private func configuration(_ files: TemporaryDirectory) throws -> MachineConfiguration {
    var configuration = MachineConfiguration()
    configuration.memory = 4 << 20
    configuration.display = .none
    configuration.serial = .file(files.path("serial"))
    // The same on every host that has the same maker's processor.
    configuration.processorPolicy = .baseline(.v1)
    configuration.hasUSB = true
    configuration.audio = .init(.ac97)
    configuration.channels = [.init(name: "test", path: files.path("channel"))]
    for (name, bus) in [("ide", MachineConfiguration.Disk.Bus.ide), ("virtio", .virtio)] {
      let path = try files.write([UInt8](repeating: 0, count: 1 << 16), to: name)
      configuration.disks.append(.init(path: path, bus: bus))
    }
    let program = GuestProgram.summing(steps: Self.steps)
    configuration.boot = .kernel(
      path: try files.write(program.elf(), to: "program"), initialRAMDisk: nil, commandLine: "")
    return configuration
  }

  @Test(
    "are written",
    .enabled(if: getenv("CARREL_WRITE_CORPUS") != nil, "CARREL_WRITE_CORPUS says where"))
  func write() throws {
    let target = try #require(Self.target)
    let files = try TemporaryDirectory()
    let machine = try Machine(try configuration(files))
    defer { machine.tearDown() }
    try machine.resume()
    for (number, identifier) in Self.identifiers.enumerated() {
      let before = (try? files.read("serial").count) ?? 0
      try eventually("output") { ((try? files.read("serial").count) ?? 0) > before }
      let report = try machine.saveSnapshot(
        SnapshotRequest(
          path: files.path("machine-\(number + 1)"),
          identifier: try #require(MachineUUID(bytes: identifier)),
          base: number == 0 ? nil : MachineUUID(bytes: Self.identifiers[number - 1]),
          created: 1_750_000_000))
      #expect(report.isDifferential == (number > 0))
      try CountingProgram.shell(
        "gzip -9nc machine-\(number + 1) > \(target)/machine-\(number + 1).gz", in: files)
    }
  }

  @Test("open, are whole, and go on where the processor is the same", arguments: [1, 2])
  func opens(number: Int) throws {
    let files = try TemporaryDirectory()
    for other in 1...number {
      try CountingProgram.shell(
        "gzip -dc \(Self.corpus)/machine-\(other).gz > machine-\(other)", in: files)
    }
    #expect(try files.read("machine-\(number)")[8] == UInt8(number), "the container's version")
    let chain = try SnapshotChain(path: files.path("machine-\(number)")) { identifier in
      Self.identifiers.firstIndex(of: identifier).map { files.path("machine-\($0 + 1)") }
    }
    try chain.verify()
    #expect(chain.newest.identifier == Self.identifiers[number - 1])
    #expect(chain.files.count == number && chain.newest.memory("ram")?.size == 4 << 20)
    let saved = try SavedMachine(chain)
    let configuration = try configuration(files)
    do {
      try Machine.check(configuration, goesOnFrom: saved)
    } catch let error as MachineError where Self.isOfProcessor(error) {
      // The corpus is of a host with a processor of AMD's.
      try #require(Self.vendor != "AuthenticAMD", "\(error)")
      return
    }
    let machine = try Machine(configuration, from: saved)
    defer { machine.tearDown() }
    try machine.resume()
    #expect(machine.waitForEnd() == .guestShutdown)
    #expect(try Array(files.read("serial").suffix(4)) == Self.result)
  }

  private static func isOfProcessor(_ error: MachineError) -> Bool {
    error.kind == .state && error.problem.contains("the saved machine has processors of")
  }

  private static var vendor: String? {
    let text = (try? Files.read("/proc/cpuinfo", limit: 4 << 20)) ?? []
    let line = String(decoding: text, as: UTF8.self).split(separator: "\n")
      .first { $0.hasPrefix("vendor_id") }
    return line?.split(separator: " ").last.map(String.init)
  }
}
