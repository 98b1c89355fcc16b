import LinuxSystem
import TestSupport

/// A QEMU whose processor does not run: a test does the processor's work through
/// the qtest protocol, and takes pictures through QMP.
final class QEMUPeer {
  struct Failure: Error, CustomStringConvertible {
    let description: String
  }

  private static let videoMemoryBase: UInt64 = 0xE000_0000
  private static let registerBase: UInt64 = 0xFEBF_0000

  private let child: ChildProcess
  private let qtest: LineSocket
  private let qmp: LineSocket
  private let picturePath: String

  init() throws {
    guard let executable = HostFacilities.executable("qemu-system-x86_64") else {
      throw Failure(description: "no QEMU")
    }
    let (test, control) = (
      try UnixSocket.pair(kind: .stream), try UnixSocket.pair(kind: .stream)
    )
    qtest = LineSocket(test.0)
    qmp = LineSocket(control.0)
    child = try Self.start(executable, test: test.1, control: control.1)
    picturePath = "/tmp/carrel-vga-\(child.handle.identifier).ppm"
    _ = try qmp.readLine()
    try command("qmp_capabilities")
    try mapBars()
  }

  /// Debian's QEMU has no qtest accelerator, but serves the protocol; a processor
  /// that is stopped from the start does as well. Its clock stands still too.
  private static func start(
    _ executable: String, test: UnixSocket, control: UnixSocket
  ) throws -> ChildProcess {
    var request = ChildProcess.Request(
      executable,
      [
        "-machine", "pc", "-accel", "tcg", "-S", "-m", "16", "-vga", "std", "-display", "none",
        "-nodefaults", "-chardev", "socket,id=qtest,fd=3", "-qtest", "chardev:qtest",
        "-qtest-log", "none", "-chardev", "socket,id=control,fd=4",
        "-mon", "chardev=control,mode=control",
      ])
    request.descriptors = [3: test.descriptor, 4: control.descriptor]
    return try ChildProcess(request)
  }

  deinit {
    try? child.handle.send(.kill)
    _ = try? child.wait()
    try? Files.remove(picturePath)
  }

  /// The VGA is device 2 of bus 0.
  private func mapBars() throws {
    let settings: [(UInt32, UInt64)] = [
      (0x10, Self.videoMemoryBase), (0x18, Self.registerBase), (0x04, 0x07),
    ]
    for (register, value) in settings {
      try ask("outl 0xcf8 0x\(String(0x8000_1000 | register, radix: 16))")
      try ask("outl 0xcfc 0x\(String(value, radix: 16))")
    }
  }

  /// Runs the script and returns what its reads gave.
  func run(_ script: RegisterScript) throws -> [UInt64] {
    var values: [UInt64] = []
    var batch: [String] = []
    func flush() throws {
      guard !batch.isEmpty else { return }
      try qtest.send(batch.joined())
      for _ in batch { _ = try reply() }
      batch = []
    }
    for step in script.steps {
      switch step {
      case .in8(let port): try flush(); values.append(try ask("inb \(hex(port))"))
      case .in16(let port): try flush(); values.append(try ask("inw \(hex(port))"))
      case .read(let address, let count):
        try flush()
        for index in 0..<UInt32(count) { values.append(try ask("readb \(hex(address + index))")) }
      case .mmioRead(let offset, let width):
        try flush()
        values.append(
          try ask("read\(suffix(width)) \(hex(Self.registerBase + UInt64(offset)))"))
      case .refresh:
        try flush()
        _ = try picture()
      default:
        // Few enough that the answers never fill the socket while we still write.
        for line in lines(for: step) {
          batch.append(line)
          if batch.count == 64 { try flush() }
        }
      }
    }
    try flush()
    return values
  }

  private func lines(for step: RegisterScript.Step) -> [String] {
    switch step {
    case .out8(let port, let value): ["outb \(hex(port)) \(hex(value))\n"]
    case .out16(let port, let value): ["outw \(hex(port)) \(hex(value))\n"]
    case .touch(let port): ["inb \(hex(port))\n"]
    case .write(let address, let bytes): blocks(UInt64(address), bytes)
    case .videoMemory(let offset, let bytes):
      blocks(Self.videoMemoryBase + UInt64(offset), bytes)
    case .mmioWrite(let offset, let width, let value):
      ["write\(suffix(width)) \(hex(Self.registerBase + UInt64(offset))) \(hex(value))\n"]
    default: []
    }
  }

  private func blocks(_ address: UInt64, _ bytes: [UInt8]) -> [String] {
    stride(from: 0, to: bytes.count, by: 4096).map { start in
      let block = bytes[start..<min(start + 4096, bytes.count)]
      let digits = block.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
      return "write \(hex(address + UInt64(start))) \(hex(block.count)) 0x\(digits)\n"
    }
  }

  private func hex(_ value: some BinaryInteger) -> String { "0x" + String(value, radix: 16) }

  private func suffix(_ width: Int) -> String { width == 1 ? "b" : width == 2 ? "w" : "l" }

  @discardableResult
  private func ask(_ line: String) throws -> UInt64 {
    try qtest.send(line + "\n")
    return try reply()
  }

  private func reply() throws -> UInt64 {
    let line = try qtest.readLine()
    guard line.hasPrefix("OK") else { throw Failure(description: "qtest: \(line)") }
    let digits = line.dropFirst(2).drop { $0 == " " }
    return UInt64(digits.hasPrefix("0x") ? digits.dropFirst(2) : digits, radix: 16) ?? 0
  }

  private func command(_ name: String, _ arguments: String = "{}") throws {
    try qmp.send("{\"execute\": \"\(name)\", \"arguments\": \(arguments)}\n")
    while true {
      let line = try qmp.readLine()
      if line.contains("\"return\"") { return }
      if line.contains("\"error\"") { throw Failure(description: "QMP: \(line)") }
    }
  }

  func picture() throws -> Picture {
    try command("screendump", "{\"filename\": \"\(picturePath)\"}")
    guard let picture = Picture(ppm: try Files.read(picturePath)) else {
      throw Failure(description: "screendump is no PPM")
    }
    return picture
  }
}

/// Lines over a stream socket.
final class LineSocket {
  private let socket: UnixSocket
  private var pending: [UInt8] = []

  init(_ socket: UnixSocket) { self.socket = socket }

  func send(_ text: String) throws {
    try socket.descriptor.writeAll(Array(text.utf8))
  }

  func readLine() throws -> String {
    while true {
      if let end = pending.firstIndex(of: 0x0A) {
        let line = String(decoding: pending[..<end], as: UTF8.self)
        pending.removeSubrange(...end)
        return line
      }
      let message = try socket.receive()
      guard !message.isEnd else { throw QEMUPeer.Failure(description: "QEMU went away") }
      pending += message.bytes
    }
  }
}
