/// Connections between programs of the guest and of the host, by port numbers.
///
/// Everything happens with the device lock held; nothing blocks.
public protocol StreamBackend: AnyObject {
  /// A program of the guest wants to talk with whoever serves `port` on the host.
  /// `onOpen` or `onEnd` of the stream tells, later, whether somebody does.
  func connect(toHostPort port: UInt32) -> any HostStream

  /// A program of the host wants to talk with the one that serves a port of the guest. The
  /// device calls `accept` on the stream, or `close`.
  var onConnect: ((any HostStream, _ guestPort: UInt32) -> Void)? { get set }
}

/// The host's end of one connection.
public protocol HostStream: AnyObject {
  var onOpen: (() -> Void)? { get set }
  /// Called with each batch of bytes for the guest, at most what `room` said.
  var onReceive: (([UInt8]) -> Void)? { get set }
  /// How many bytes the device takes now. Once it was 0, `hasRoom` tells when to ask again.
  var room: (() -> Int)? { get set }
  /// Called when there is room again after `write` took less than it was given.
  var onWritable: (() -> Void)? { get set }
  /// The program sends nothing more; when it `isGone`, it takes nothing either.
  var onEnd: ((_ isGone: Bool) -> Void)? { get set }

  /// The guest's program is there, and the host's end has this number.
  func accept(hostPort: UInt32)
  /// Takes bytes from the guest; returns how many were accepted.
  func write(_ bytes: [UInt8]) -> Int
  /// The device, whose `room` was found to be 0, has room again.
  func hasRoom()
  /// The guest sends nothing more; what was written still arrives.
  func finish()
  /// Neither side sends any more. Nothing is called from now on.
  func close()
}
