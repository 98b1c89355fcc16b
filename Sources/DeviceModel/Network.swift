/// The wire behind a network card: Ethernet frames from the destination address on,
/// without the check sequence.
///
/// Everything happens with the device lock held; nothing blocks.
public protocol NetworkBackend: AnyObject {
  /// Takes a frame from the guest; one that finds no room is lost, as on a wire.
  func send(_ frame: [UInt8])

  /// Called with each frame for the guest; `false` when the card has no buffer for it now
  /// but may soon: the frame is kept, and `hasRoom` tells when to offer it again.
  var onReceive: (([UInt8]) -> Bool)? { get set }

  /// The card, which refused a frame, may have room again.
  func hasRoom()

  /// Whether there is something at the other end.
  var isConnected: Bool { get }

  /// Called after `isConnected` changed.
  var onConnectionChange: (() -> Void)? { get set }
}
