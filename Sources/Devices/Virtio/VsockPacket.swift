import DeviceModel

/// struct virtio_vsock_hdr (VIRTIO 1.2, section 5.10.6).
struct VsockPacket {
  static let headerSize = 44
  static let stream: UInt16 = 1

  enum Operation: UInt16 {
    case request = 1
    case response = 2
    case reset = 3
    case shutdown = 4
    case data = 5
    case creditUpdate = 6
    case creditRequest = 7
  }

  /// Flags of `shutdown`: the sender receives, or sends, nothing more.
  enum Shutdown {
    static let receive: UInt32 = 1
    static let send: UInt32 = 2
    static let both: UInt32 = receive | send
  }

  var source: UInt64
  var destination: UInt64
  var sourcePort: UInt32
  var destinationPort: UInt32
  var length: UInt32 = 0
  var type = VsockPacket.stream
  var operation: UInt16
  var flags: UInt32 = 0
  /// How much the sender takes in all, and has passed on of it.
  var allocated: UInt32 = 0
  var forwarded: UInt32 = 0

  init(
    _ operation: Operation, from source: (UInt64, UInt32), to destination: (UInt64, UInt32),
    flags: UInt32 = 0
  ) {
    (self.source, sourcePort) = source
    (self.destination, destinationPort) = destination
    self.operation = operation.rawValue
    self.flags = flags
  }

  /// - Parameter bytes: a header's.
  init(_ bytes: [UInt8]) {
    func number<T: FixedWidthInteger>(_ offset: Int) -> T {
      LittleEndian.number(bytes, at: offset, T.self)
    }
    source = number(0)
    destination = number(8)
    sourcePort = number(16)
    destinationPort = number(20)
    length = number(24)
    type = number(28)
    operation = number(30)
    flags = number(32)
    allocated = number(36)
    forwarded = number(40)
  }

  var bytes: [UInt8] {
    LittleEndian.bytes(source) + LittleEndian.bytes(destination)
      + LittleEndian.bytes(sourcePort) + LittleEndian.bytes(destinationPort)
      + LittleEndian.bytes(length) + LittleEndian.bytes(type) + LittleEndian.bytes(operation)
      + LittleEndian.bytes(flags) + LittleEndian.bytes(allocated) + LittleEndian.bytes(forwarded)
  }
}
