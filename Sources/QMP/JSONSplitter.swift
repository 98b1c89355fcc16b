/// Cuts a byte stream into JSON objects, which need not come in lines. Memory is
/// bounded; garbage costs one report per line and the next object is found again.
package struct JSONSplitter {
  package enum Piece: Equatable, Sendable {
    /// One object with balanced brackets; not parsed yet.
    case object([UInt8])
    /// Bytes that begin no object.
    case garbage
    /// An object longer than the limit; the rest of its line is dropped.
    case tooLong
  }

  private enum Mode { case between, inObject, skippingLine }

  private let limit: Int
  private var mode = Mode.between
  private var buffer: [UInt8] = []
  private var depth = 0
  private var isInString = false
  private var isEscaped = false

  package init(limit: Int = 1 << 16) { self.limit = limit }

  package mutating func receive(_ bytes: some Sequence<UInt8>) -> [Piece] {
    var pieces: [Piece] = []
    for byte in bytes {
      if let piece = receive(byte) { pieces.append(piece) }
    }
    return pieces
  }

  private mutating func receive(_ byte: UInt8) -> Piece? {
    switch mode {
    case .skippingLine:
      if byte == 0x0A { mode = .between }
      return nil
    case .between:
      switch byte {
      // 0xFF is how clients reset the parser of a peer in an unknown state.
      case 0x20, 0x0A, 0x0D, 0x09, 0xFF: return nil
      case UInt8(ascii: "{"):
        mode = .inObject
        buffer = []
        depth = 0
        isInString = false
        isEscaped = false
        return append(byte)
      default:
        mode = .skippingLine
        return .garbage
      }
    case .inObject: return append(byte)
    }
  }

  private mutating func append(_ byte: UInt8) -> Piece? {
    guard buffer.count < limit else {
      buffer = []
      mode = byte == 0x0A ? .between : .skippingLine
      return .tooLong
    }
    buffer.append(byte)
    if isInString {
      if isEscaped {
        isEscaped = false
      } else if byte == UInt8(ascii: "\\") {
        isEscaped = true
      } else if byte == UInt8(ascii: "\"") {
        isInString = false
      }
      return nil
    }
    switch byte {
    case UInt8(ascii: "\""): isInString = true
    case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
    case UInt8(ascii: "}"), UInt8(ascii: "]"): depth -= 1
    default: break
    }
    guard depth == 0 else { return nil }
    mode = .between
    defer { buffer = [] }
    return .object(buffer)
  }
}
