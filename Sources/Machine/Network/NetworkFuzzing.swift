import LinuxSystem

/// Lets a network that speaks passt's protocol, and a guest, send anything. Shared by the fuzz
/// target and the tests.
package enum NetworkFuzzing {
  private static let own: Set<[UInt8]> = [
    [192, 0, 2, 1], [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [1],
  ]

  /// The first byte says into how large pieces the rest, which is what the network sends, is
  /// cut; the second how much more of each frame comes back as the guest's own.
  ///
  /// - Returns: whether pieces come to the same frames as the whole, those are what was sent,
  ///   the guest's frames arrive at the network's end, and none of them is for this host.
  package static func run(_ program: [UInt8]) -> Bool {
    guard program.count >= 2 else { return true }
    let stream = Array(program[2...])
    let (frames, isSound) = received(stream, pieces: max(1, Int(program[0])))
    var whole = FrameBuffer(longest: FrameBuffer.longestFrame)
    switch whole.take(stream) {
    case nil: guard !isSound else { return false }
    case let all?: guard isSound, all == frames else { return false }
    }
    guard stream.starts(with: frames.flatMap { FrameBuffer.framed($0) }) else { return false }
    let filter = HostFilter(own: own)
    let admitted = frames.filter { filter.admits($0) }
    guard admitted.allSatisfy({ !isForHost($0) }) else { return false }
    return arrive(admitted, times: Int(program[1]), stream)
  }

  /// The frames of a stream that comes in pieces, until it makes no sense.
  private static func received(
    _ stream: [UInt8], pieces: Int
  ) -> (frames: [[UInt8]], isSound: Bool) {
    var buffer = FrameBuffer(longest: FrameBuffer.longestFrame)
    var frames: [[UInt8]] = []
    var rest = stream[...]
    while !rest.isEmpty {
      let piece = rest.prefix(pieces)
      guard let some = buffer.take(Array(piece)) else { return (frames, false) }
      frames += some
      rest = rest.dropFirst(piece.count)
    }
    return (frames, true)
  }

  private static func isForHost(_ frame: [UInt8]) -> Bool {
    switch (frame[12], frame[13]) {
    case (8, 0): own.contains(Array(frame[30..<34])) || [0, 127].contains(frame[30])
    case (0x86, 0xDD): own.contains(Array(frame[38..<54]))
    default: (frame[12], frame[13]) != (8, 6)
    }
  }

  /// Sends frames, some longer by a multiple, while the other end takes as much as `reads` says.
  private static func arrive(_ frames: [[UInt8]], times: Int, _ reads: [UInt8]) -> Bool {
    guard let (near, far) = try? UnixSocket.pair(kind: .stream) else { return true }
    var unsent = UnsentBytes()
    var (sent, arrived): ([UInt8], [UInt8]) = ([], [])
    for (index, frame) in frames.prefix(32).enumerated() {
      let long = Array(repeatElement(frame, count: 1 + times).joined().prefix(65535))
      let bytes = FrameBuffer.framed(long)
      sent += bytes
      _ = unsent.add(bytes, for: near)
      let wanted = Int(reads[index % reads.count]) << 8
      if wanted > 0, let message = try? far.receive(capacity: wanted, blocking: false) {
        arrived += message.bytes
      }
    }
    while arrived.count < sent.count {
      unsent.flush(to: near)
      // What there is comes in order, and all of it: nothing waits while there is room.
      guard let message = try? far.receive(capacity: 1 << 16, blocking: false), !message.isEnd
      else { return false }
      arrived += message.bytes
    }
    return unsent.isEmpty && arrived == sent
  }
}
