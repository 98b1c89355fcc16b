import LinuxSystem

/// How a range of an image is made to hold nothing.
enum RangeClearing {
  /// Storage is let go of where the file system can; otherwise nothing happens.
  case discard
  /// Zeros, with their storage kept.
  case zero
  /// Zeros, without storage where the file system can.
  case zeroSparsely

  private static let portion = 1 << 20

  func carryOut(
    _ file: FileDescriptor, offset: UInt64, count: UInt64
  ) throws(SystemError) {
    guard count > 0 else { return }
    let ways: [FileDescriptor.Clearing] =
      switch self {
      case .discard: [.punchHole]
      case .zero: [.zeroRange]
      case .zeroSparsely: [.punchHole, .zeroRange]
      }
    for way in ways where try file.clear(way, offset: offset, count: count) { return }
    if case .discard = self { return }
    let zeros = [UInt8](repeating: 0, count: Int(min(count, UInt64(Self.portion))))
    var done: UInt64 = 0
    while done < count {
      let part = zeros.prefix(Int(clamping: min(count - done, UInt64(Self.portion))))
      try file.write(part, offset: offset + done)
      done += UInt64(part.count)
    }
  }
}
