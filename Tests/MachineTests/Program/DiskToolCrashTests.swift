import LinuxSystem
import TestSupport
import Testing

/// `carrel-vmm disk …` on three images, which ends before it is done.
@Suite("Disk images whose tool is killed", .needs("qemu-img", "qemu-io"), .serialized)
struct DiskToolCrashTests {
  private let directory: TemporaryDirectory

  /// The top has the first 40 MiB of its own, the middle the next 40.
  init() throws {
    directory = try TemporaryDirectory()
    try shell(
      """
      head -c 96M /dev/urandom > base.raw
      qemu-img create -q -f qcow2 -b base.raw -F raw middle.qcow2
      qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2
      qemu-io -c 'write -q -P 3 40M 40M' middle.qcow2
      qemu-io -c 'write -q -P 5 0 40M' top.qcow2
      qemu-img convert -f qcow2 -O raw top.qcow2 expected.raw
      """)
  }

  @discardableResult
  private func shell(_ command: String) throws -> String {
    let (status, output) = try directory.run("set -e; \(command)")
    #expect(status == 0, "\(command): \(output)")
    return output
  }

  private func checkChain(_ when: String) throws {
    let compared = try directory.run("qemu-img compare -f qcow2 -F raw top.qcow2 expected.raw")
    #expect(compared.status == 0, "\(when): \(compared.output)")
    for name in ["top", "middle"] {
      // Lost room is no error.
      let (status, output) = try directory.run("qemu-img check -f qcow2 \(name).qcow2")
      #expect(status == 0 || status == 3, "\(name), \(when): \(output)")
    }
  }

  private func start(_ arguments: [String]) throws -> (ChildProcess, output: FileDescriptor) {
    let pipe = try Pipe()
    var request = ChildProcess.Request(
      Programs.built("carrel-vmm"), ["disk"] + arguments + ["--progress", "top.qcow2"])
    request.directory = directory.path
    request.descriptors = [0: try FileDescriptor.open("/dev/null"), 1: pipe.input]
    return (try ChildProcess(request), pipe.output)
  }

  /// Starts the tool and ends it once it tells of so many percent.
  private func run(_ arguments: [String], killedAt percent: Int) throws -> ChildProcess.Exit {
    let (child, output) = try start(arguments)
    var number = 0
    reading: while true {
      let bytes = try output.read(upTo: 4096)
      guard !bytes.isEmpty else { break }
      for byte in bytes {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"):
          number = number * 10 + Int(byte - UInt8(ascii: "0"))
        case UInt8(ascii: "%"):
          if number >= percent { break reading }
          number = 0
        default: continue
        }
      }
    }
    try child.handle.send(.kill)
    return try child.wait()
  }

  private static let operations = [
    (["flatten"], [45, 60, 90]), (["rebase", "--onto", "raw:base.raw"], [45, 60, 75]),
    (["commit"], [5, 20, 35]),
  ]

  @Test(
    "leave a sound chain that reads as before, and are done when it is run again",
    arguments: operations)
  func killed(arguments: [String], places: [Int]) throws {
    for percent in places {
      let exit = try run(arguments, killedAt: percent)
      #expect(exit == .signalled(.kill), "at \(percent) %")
      try checkChain("killed at \(percent) %")
    }
    let program = Programs.built("carrel-vmm")
    try shell("\(program) disk \(arguments.joined(separator: " ")) --json top.qcow2")
    try checkChain("done")
    let base = try shell("qemu-img info top.qcow2").contains("backing file:")
    #expect(base == (arguments != ["flatten"]))
  }

  @Test("that may not write so much leave a sound chain that reads as before")
  func limited() throws {
    let program = Programs.built("carrel-vmm")
    let (status, output) = try directory.run(
      "bash -c 'ulimit -c 0; ulimit -f 61440; exec \(program) disk flatten top.qcow2'")
    #expect(status != 0, "\(output)")
    try checkChain("beyond its limit")
    try shell("\(program) disk flatten top.qcow2")
    try checkChain("done")
  }

  @Test("progress for programs is a line for each percent, before the answer")
  func progress() throws {
    let output = try shell(
      "\(Programs.built("carrel-vmm")) disk flatten --json --progress top.qcow2")
    let lines = output.split(separator: "\n")
    #expect(lines.dropLast().allSatisfy { $0.hasSuffix("%") })
    #expect(lines.dropLast().last == "100%")
    #expect(lines.count > 50)
    #expect(lines.last?.contains("\"file\"") == true)
  }
}
