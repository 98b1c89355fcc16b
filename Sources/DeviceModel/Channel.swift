/// The host's end of a channel between a guest's program and one of the host's.
///
/// As of a serial line, and both ends know whether there is somebody at the other one.
/// Everything happens with the device lock held; nothing blocks.
public protocol ChannelBackend: CharacterBackend {
  /// Called when there is room again after `write` took less than it was given.
  var onWritable: (() -> Void)? { get set }

  /// Whether a program of the host is there. What is written while none is, is lost.
  var isConnected: Bool { get }

  /// Called after `isConnected` changed.
  var onConnectionChange: (() -> Void)? { get set }
}
