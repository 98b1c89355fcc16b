/// One moment of sound, as each ear hears it.
public struct AudioFrame: Codable, Hashable, Sendable {
  public var left: Int16
  public var right: Int16

  public init(left: Int16, right: Int16) {
    self.left = left
    self.right = right
  }

  public static let silence = AudioFrame(left: 0, right: 0)
}

/// Where the sound of one device goes. Called under the device lock; never blocks.
///
/// A device plays what it played during the time that has passed, not what is to come: as
/// many frames as its rate makes of that time.
public protocol AudioSink: AnyObject {
  /// The sound of the time up to now, at `rate` frames a second. It follows without a gap
  /// what was played before, unless the device rested since.
  func play(_ frames: [AudioFrame], rate: Int)

  /// The device is silent from now on, until it plays again. Free when it is.
  func rest()
}

/// Where a device that records gets its sound from. Called under the device lock.
public protocol AudioSource: AnyObject {
  /// Exactly `count` frames, at `rate` a second: those of the time up to now.
  func record(_ count: Int, rate: Int) -> [AudioFrame]

  /// Nothing is recorded from now on, until the next `record`. Free when it is so.
  func rest()
}

/// Nothing is connected.
public final class SilentSource: AudioSource {
  public init() {}

  public func record(_ count: Int, rate: Int) -> [AudioFrame] {
    Array(repeating: .silence, count: count)
  }

  public func rest() {}
}
