import Glibc
import LinuxSystem

/// An RFB client that asks for sound by QEMU's extension, as gtk-vnc does.
public final class SoundViewer {
  public struct Failure: Error, CustomStringConvertible { public let description: String }

  /// One thing the server said.
  public enum Message: Equatable {
    /// How many bytes of raw pixels, and which pseudo-encodings.
    case update(pixels: Int, pseudo: [Int32])
    case begin
    case data([UInt8])
    case end
    case bell
  }

  public static let encoding: Int32 = -259
  public private(set) var width = 0
  public private(set) var height = 0
  private let descriptor: FileDescriptor
  private var buffer: [UInt8] = []

  public init(_ descriptor: FileDescriptor) {
    self.descriptor = descriptor
  }

  // MARK: Talking

  /// Comes in without a password, and waits until sound is offered.
  public func connect() throws {
    try descriptor.writeAll(Array("RFB 003.008\n".utf8))
    guard try read(12) == Array("RFB 003.008\n".utf8), try read(2) == [1, 1] else {
      throw Failure(description: "greeting")
    }
    try descriptor.writeAll([1])
    guard try read(4) == [0, 0, 0, 0] else { throw Failure(description: "security result") }
    try descriptor.writeAll([1])
    let header = try read(24)
    (width, height) = (number(header[0..<2]), number(header[2..<4]))
    _ = try read(number(header[20..<24]))
    try descriptor.writeAll([2, 0, 0, 2, 0, 0, 0, 0] + big(UInt32(bitPattern: Self.encoding)))
    while true {
      if case .update(_, let pseudo) = try next(), pseudo.contains(Self.encoding) { return }
    }
  }

  public func setFormat(_ format: UInt8, channels: UInt8, rate: UInt32) throws {
    try descriptor.writeAll([255, 1, 0, 2, format, channels] + big(rate))
  }

  public func enable() throws { try descriptor.writeAll([255, 1, 0, 0]) }

  public func disable() throws { try descriptor.writeAll([255, 1, 0, 1]) }

  /// Asks for all pixels.
  public func request() throws {
    let size = [width, height].flatMap { big(UInt32($0)).suffix(2) }
    try descriptor.writeAll([3, 0, 0, 0, 0, 0] + size)
  }

  // MARK: Listening

  /// Whether something comes within the time.
  public func hasMore(within milliseconds: Int32) -> Bool {
    var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
    return !buffer.isEmpty || poll(&watched, 1, milliseconds) == 1
  }

  public func next() throws -> Message {
    switch try read(1)[0] {
    case 0: return try update()
    case 2: return .bell
    case 255:
      guard try read(2) == [1, 0] else { throw Failure(description: "message of QEMU's") }
      switch try read(1)[0] {
      case 0: return .end
      case 1: return .begin
      case 2: return .data(try read(number(try read(4))))
      case let operation: throw Failure(description: "operation \(operation)")
      }
    case let type: throw Failure(description: "message type \(type)")
    }
  }

  /// A stream's bytes, from its beginning to its end.
  public func stream() throws -> [UInt8] {
    var bytes: [UInt8]?
    while true {
      switch try next() {
      case .begin where bytes == nil: bytes = []
      case .data(let data) where bytes != nil: bytes? += data
      case .end where bytes != nil: return bytes ?? []
      case .update, .bell: break
      case let message: throw Failure(description: "out of turn: \(message)")
      }
    }
  }

  private func update() throws -> Message {
    let count = number(try read(3).dropFirst())
    var (pixels, pseudo): (Int, [Int32]) = (0, [])
    for _ in 0..<count {
      let header = try read(12)
      let encoding = Int32(truncatingIfNeeded: number(header[8..<12]))
      guard encoding == 0 else {
        pseudo.append(encoding)
        continue
      }
      pixels += try read(number(header[4..<6]) * number(header[6..<8]) * 4).count
    }
    return .update(pixels: pixels, pseudo: pseudo)
  }

  private func read(_ count: Int) throws -> [UInt8] {
    while buffer.count < count {
      var watched = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
      guard poll(&watched, 1, 20_000) == 1 else { throw Failure(description: "nothing came") }
      let part = try descriptor.read(upTo: 1 << 20)
      guard !part.isEmpty else { throw Failure(description: "the server hung up") }
      buffer += part
    }
    defer { buffer.removeFirst(count) }
    return Array(buffer[..<count])
  }

  private func number(_ bytes: some Collection<UInt8>) -> Int {
    bytes.reduce(0) { $0 << 8 | Int($1) }
  }

  private func big(_ value: UInt32) -> [UInt8] {
    (0..<4).map { UInt8(truncatingIfNeeded: value >> (24 - $0 * 8)) }
  }
}
