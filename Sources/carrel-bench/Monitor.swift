import Foundation
import LinuxSystem

/// QMP, one command after the other.
final class Monitor {
  private let socket: UnixSocket
  private var received: [UInt8] = []
  /// Commands whose answers nobody waits for.
  private var told = 0

  convenience init(_ path: String) throws {
    self.init(unheard: try UnixSocket.connect(to: path, kind: .stream))
    try execute("qmp_capabilities")
  }

  /// - Parameter process: is about to listen there.
  convenience init(_ path: String, offeredBy process: ChildProcess) throws {
    self.init(unheard: try TemplateProcess.connect(to: path, kind: .stream, process))
    try execute("qmp_capabilities")
  }

  /// - Parameter socket: its other end is a process's that may not listen yet; commands wait
  ///   for it there.
  init(unheard socket: UnixSocket) { self.socket = socket }

  private func message() throws -> [String: Any] {
    while true {
      if let end = received.firstIndex(of: 0x0A) {
        let line = Data(received[..<end])
        received.removeSubrange(...end)
        return try JSONSerialization.jsonObject(with: line) as? [String: Any] ?? [:]
      }
      try socket.awaitBytes("a word from the control socket", seconds: 120)
      let part = try socket.receive()
      guard !part.isEnd else { throw BenchError("the control socket was closed") }
      received += part.bytes
    }
  }

  @discardableResult
  func execute(_ command: String, _ arguments: [String: Any] = [:]) throws -> [String: Any] {
    try write(command, arguments)
    while true {
      let answer = try message()
      if let error = answer["error"] { throw BenchError("\(command): \(error)") }
      guard let result = answer["return"] else { continue }
      if told == 0 { return result as? [String: Any] ?? [:] }
      told -= 1
    }
  }

  /// Has a command carried out; if that fails, what is waited for next says so.
  func tell(_ command: String, _ arguments: [String: Any] = [:]) throws {
    try write(command, arguments)
    told += 1
  }

  private func write(_ command: String, _ arguments: [String: Any]) throws {
    let json = try JSONSerialization.data(
      withJSONObject: ["execute": command, "arguments": arguments])
    try socket.descriptor.writeAll([UInt8](json) + [0x0A])
  }

  /// Waits for an event.
  func awaitEvent(_ name: String) throws {
    while true {
      let message = try message()
      if let error = message["error"] { throw BenchError("\(error)") }
      if message["return"] != nil { told -= 1 }
      if message["event"] as? String == name { return }
    }
  }

  /// Waits for an event that says so.
  func awaitEvent(_ name: String, done: String, failed: String) throws {
    while true {
      let message = try message()
      guard message["event"] as? String == name, let data = message["data"] as? [String: Any]
      else { continue }
      switch data["status"] as? String {
      case done: return
      case failed: throw BenchError("\(name): \(data)")
      default: break
      }
    }
  }
}

/// Kernels with a PVH entry, which both servers start in 32-bit mode.
enum PVHKernel {
  private static let base: UInt32 = 0x10_0000

  /// ELF32 with the note XEN_ELFNOTE_PHYS32_ENTRY.
  static func elf(_ code: [UInt8]) -> Data {
    func half(_ value: UInt16) -> [UInt8] { [UInt8(value & 0xFF), UInt8(value >> 8)] }
    func word(_ value: UInt32) -> [UInt8] {
      (0..<4).map { UInt8(truncatingIfNeeded: value >> ($0 * 8)) }
    }
    let note = word(4) + word(4) + word(18) + Array("Xen\0".utf8) + word(base)
    let headers: UInt32 = 52 + 2 * 32
    let (noteAt, codeAt) = (headers, headers + UInt32(note.count))
    var file: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 1, 1, 1] + [UInt8](repeating: 0, count: 9)
    file += half(2) + half(3) + word(1) + word(base) + word(52) + word(0) + word(0)
    file += half(52) + half(32) + half(2) + half(0) + half(0) + half(0)
    func segment(_ type: UInt32, _ offset: UInt32, _ address: UInt32, _ size: UInt32) -> [UInt8] {
      word(type) + word(offset) + word(address) + word(address) + word(size) + word(size)
        + word(7) + word(4)
    }
    file += segment(1, codeAt, base, UInt32(code.count))
    file += segment(4, noteAt, 0, UInt32(note.count))
    return Data(file + note + code)
  }
}
