import CarrelBase

/// Takes a stream of frames apart, each after its length in four bytes, big endian.
package struct FrameBuffer {
  /// A whole frame of passt's protocol; what is longer is not Ethernet, and ends the link.
  static let longestFrame = 65535 + 18

  private let longest: Int
  private var bytes: [UInt8] = []

  package init(longest: Int) { self.longest = longest }

  /// A frame as it is in such a stream.
  static func framed(_ frame: [UInt8]) -> [UInt8] {
    BigEndian.bytes(UInt32(truncatingIfNeeded: frame.count)) + frame
  }

  /// The frames that are complete now; `nil` when the stream makes no sense.
  package mutating func take(_ part: [UInt8]) -> [[UInt8]]? {
    bytes += part
    var frames: [[UInt8]] = []
    var start = 0
    while bytes.count - start >= 4 {
      let length = bytes[start..<start + 4].reduce(0) { $0 << 8 | Int($1) }
      guard length <= longest else { return nil }
      guard bytes.count - start - 4 >= length else { break }
      frames.append(Array(bytes[start + 4..<start + 4 + length]))
      start += 4 + length
    }
    bytes.removeFirst(start)
    return frames
  }
}
