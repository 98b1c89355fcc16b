import CNativeCode
import Glibc
import LinuxSystem
import QMP
import TestSupport
import Testing

/// A `carrel-vmm template` of a guest that answers, killed when it is let go of.
final class RunningTemplate {
  /// Of the guest's answer to 'i'.
  static let identitySize = 76

  let directory: TemporaryDirectory
  let process: ChildProcess
  let socket: UnixSocket

  /// - Parameters:
  ///   - machine: options of the machine besides its memory; `@` stands for the directory.
  ///   - options: of the template.
  ///   - descriptors: how many it may have.
  convenience init(
    _ machine: [String] = ["--net", "none"], _ options: [String] = [], descriptors: Int? = nil,
    in directory: TemporaryDirectory? = nil
  ) throws {
    let directory = try directory ?? TemporaryDirectory()
    let machine =
      ["--vga", "none", "--fw-cfg", "name=opt/carrel/hostname,string=a template's name"] + machine
    try Self.save(machine, in: directory)
    try self.init(ofSaved: machine + options, in: directory, descriptors: descriptors)
  }

  /// Of the machine that is saved as `saved`, whose guest is `program`.
  ///
  /// - Parameter options: its own besides its memory, and the template's.
  init(ofSaved options: [String], in directory: TemporaryDirectory, descriptors: Int? = nil) throws
  {
    self.directory = directory
    var words =
      [
        "template", "--memory", "16M", "--kernel", directory.path("program"), "--restore",
        directory.path("saved"), "--listen", directory.path("listen"), "--runtime-directory",
        directory.path("template"),
      ] + options
    words = words.map { $0.replacing("@", with: directory.path) }
    var request = ChildProcess.Request(Programs.built("carrel-vmm"), words)
    if let descriptors {
      request = .init(
        "/bin/sh",
        ["-c", "ulimit -n \(descriptors); exec \"$0\" \"$@\"", Programs.built("carrel-vmm")] + words
      )
    }
    let nothing = try FileDescriptor.open("/dev/null", .writable)
    request.descriptors = [
      0: nothing, 1: nothing,
      2: try FileDescriptor.open(directory.path("errors"), [.writeOnly, .create, .truncate]),
    ]
    request.parentDeathSignal = .kill
    process = try ChildProcess(request)
    socket = try UnixSocket.connect(
      to: directory.path("listen"), kind: .packets, offeredBy: process.handle)
  }

  deinit {
    try? process.handle.send(.kill)
    _ = try? process.wait()
  }

  /// Runs the guest until it is ready, and saves it.
  private static func save(_ machine: [String], in directory: TemporaryDirectory) throws {
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    let original = try RunningProgram(
      GuestProgram(CGUEST_CLONE), machine + ["--serial", "stdio"], in: directory,
      descriptors: [0: theirs.descriptor, 1: theirs.descriptor])
    #expect(try ours.receive(capacity: 1).bytes == Array("R".utf8))
    let control = try original.control()
    // What the serial port is, the template is told of nothing else that it leads to.
    try control.execute("stop")
    try control.execute("carrel-save", ["path": .string(directory.path("saved"))])
    var event = try control.nextEvent()
    while event.name != "CARREL_SAVE_STATUS" { event = try control.nextEvent() }
    try #require(event.data?["status"] == "completed", "\(event)")
  }

  func ask(
    _ request: CloneRequest, _ descriptors: [FileDescriptor] = []
  ) throws -> CloneAnswer {
    try ask(request.encoded, descriptors)
  }

  func ask(_ bytes: [UInt8], _ descriptors: [FileDescriptor] = []) throws -> CloneAnswer {
    try socket.send(bytes, descriptors: descriptors)
    return try #require(CloneAnswer(parsing: try socket.receive().bytes))
  }

  func clone(
    _ name: String, _ change: (inout CloneRequest) -> Void = { _ in }
  ) throws -> RunningClone {
    var request = CloneRequest(name: name)
    request.serial = "stdio"
    request.firmwareFiles = ["name=opt/carrel/hostname,string=\(name)"]
    change(&request)
    let (ours, theirs) = try UnixSocket.pair(kind: .stream)
    let errors = try FileDescriptor.open(
      directory.path("\(name).errors"), [.writeOnly, .create, .truncate])
    let answer = try ask(request, [theirs.descriptor, theirs.descriptor, errors])
    guard case .started(let process, let startTime) = answer else {
      throw NeverCame(what: "clone \(name): \(answer)")
    }
    return RunningClone(
      line: ours, handle: try ProcessHandle(identifier: process, startTime: startTime))
  }
}

/// A clone of the guest, killed when it is let go of.
final class RunningClone {
  /// Its answer to 'i'.
  struct Identity {
    let entropy: [UInt8]
    let generation: [UInt8]
    let address: [UInt8]
    let isLinkUp: Bool
    let uuid: [UInt8]
    let file: String
    let notices: UInt8
    /// What is in the first of the pages that 'd' changes.
    let page: UInt8
    /// Hour, minute and second, in decimal digits.
    let clock: [Int]
  }

  let line: UnixSocket
  let handle: ProcessHandle

  init(line: UnixSocket, handle: ProcessHandle) {
    self.line = line
    self.handle = handle
  }

  deinit { try? handle.send(.kill) }

  func tell(_ byte: UInt8, answer count: Int) throws -> [UInt8] {
    try line.send([byte])
    var bytes: [UInt8] = []
    while bytes.count < count {
      let part = try line.receive(capacity: count - bytes.count)
      try #require(!part.isEnd, "the clone ended")
      bytes += part.bytes
    }
    return bytes
  }

  /// Whether it lives.
  func answers(_ challenge: UInt8) throws -> Bool {
    try tell(challenge, answer: 1) == [challenge ^ 0x55]
  }

  func identity() throws -> Identity {
    let bytes = try tell(UInt8(ascii: "i"), answer: RunningTemplate.identitySize)
    return Identity(
      entropy: Array(bytes[..<16]), generation: Array(bytes[16..<32]),
      address: Array(bytes[32..<38]), isLinkUp: bytes[38] & 1 != 0, uuid: Array(bytes[39..<55]),
      file: String(decoding: bytes[55..<71].prefix { $0 != 0 }, as: UTF8.self),
      notices: bytes[71], page: bytes[72],
      clock: bytes[73...].reversed().map { Int($0 >> 4) * 10 + Int($0 & 15) })
  }
}
