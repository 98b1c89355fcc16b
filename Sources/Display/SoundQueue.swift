import DeviceModel

/// Sound on its way to somebody who may be slow: as much as is worth hearing late, and of
/// what comes beyond that the oldest is left out.
///
/// Hands out a stream as the display link and RFB have it: its beginning, frames, its end.
public struct SoundQueue: Sendable {
  /// What is to be said next.
  public enum Item: Hashable, Sendable {
    case begin(rate: Int)
    /// `lost`: how many before them were left out.
    case frames(ArraySlice<AudioFrame>, lost: Int)
    case end
  }

  /// Frames that wait at most.
  private let limit: Int
  private var waiting: [AudioFrame] = []
  private var lost = 0
  /// The rate of what waits, or played last.
  private var rate = 0
  private var plays = false
  /// The rate that was said; `nil` when the last that was said is an end.
  private var said: Int?
  /// All that were left out so far.
  public private(set) var totalLost = 0

  public init(limit: Int) {
    self.limit = max(limit, 1)
  }

  public var isEmpty: Bool { next(atMost: 1) == nil }

  // MARK: In

  /// Sound of another rate than that which waits replaces it.
  public mutating func append(_ frames: [AudioFrame], rate: Int) {
    guard !frames.isEmpty else { return }
    if self.rate != rate { leaveOut(waiting.count) }
    self.rate = rate
    plays = true
    waiting += frames
    leaveOut(waiting.count - limit)
  }

  /// After what waits there is silence.
  public mutating func end() { plays = false }

  /// Nobody listens any more: nothing of what waits is handed out.
  public mutating func clear() {
    waiting = []
    lost = 0
    plays = false
  }

  private mutating func leaveOut(_ count: Int) {
    guard count > 0 else { return }
    waiting.removeFirst(count)
    lost += count
    totalLost += count
  }

  /// Before there are more frames, an end and a beginning are said.
  public mutating func restart() {
    if said != nil { said = 0 }
  }

  // MARK: Out

  /// The next thing to say; it is still there until `take`.
  public func next(atMost count: Int) -> Item? {
    guard let said else { return waiting.isEmpty ? nil : .begin(rate: rate) }
    if waiting.isEmpty { return plays ? nil : .end }
    return said == rate ? .frames(waiting.prefix(count), lost: lost) : .end
  }

  /// It was said.
  public mutating func take(_ item: Item) {
    switch item {
    case .begin(let rate): said = rate
    case .end: said = nil
    case .frames(let frames, _):
      waiting.removeFirst(min(frames.count, waiting.count))
      lost = 0
    }
  }
}
