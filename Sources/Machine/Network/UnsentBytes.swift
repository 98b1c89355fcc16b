import LinuxSystem

/// Bytes for a stream whose other end reads more slowly than they come.
struct UnsentBytes {
  private var bytes: [UInt8] = []

  var count: Int { bytes.count }
  var isEmpty: Bool { bytes.isEmpty }

  /// Sends what it can, after what waits already.
  ///
  /// - Returns: whether bytes began to wait: the socket is to be watched for room now.
  mutating func add(_ more: some Collection<UInt8>, for socket: UnixSocket) -> Bool {
    let hadNone = bytes.isEmpty
    bytes += more
    if hadNone { flush(to: socket) }
    return hadNone && !bytes.isEmpty
  }

  /// Sends what waits, as far as it can.
  mutating func flush(to socket: UnixSocket) {
    while !bytes.isEmpty {
      do {
        bytes.removeFirst(try socket.send(bytes, blocking: false))
      } catch {
        // The reading side finds out that the other end is gone.
        if error.kind != .wouldBlock { bytes = [] }
        return
      }
    }
  }
}
