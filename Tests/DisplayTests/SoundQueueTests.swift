import DeviceModel
import Display
import Testing

@Suite("Sound on its way")
struct SoundQueueTests {
  private static func frames(_ first: Int, _ count: Int) -> [AudioFrame] {
    (first..<first + count).map {
      AudioFrame(left: Int16(truncatingIfNeeded: $0), right: Int16(truncatingIfNeeded: -$0))
    }
  }

  /// All that there is to say.
  private static func drain(_ queue: inout SoundQueue, atMost count: Int = 1000)
    -> [SoundQueue.Item]
  {
    var items: [SoundQueue.Item] = []
    while let item = queue.next(atMost: count) {
      items.append(item)
      queue.take(item)
    }
    return items
  }

  @Test("a stream begins, has its frames in order, and ends")
  func stream() {
    var queue = SoundQueue(limit: 100)
    queue.append(Self.frames(0, 30), rate: 48000)
    queue.append(Self.frames(30, 30), rate: 48000)
    #expect(!queue.isEmpty)
    #expect(
      Self.drain(&queue, atMost: 40) == [
        .begin(rate: 48000), .frames(Self.frames(0, 40)[...], lost: 0),
        .frames(Self.frames(40, 20)[...], lost: 0),
      ])
    #expect(queue.isEmpty)
    queue.end()
    #expect(Self.drain(&queue) == [.end])
    queue.append(Self.frames(7, 1), rate: 48000)
    queue.end()
    #expect(
      Self.drain(&queue) == [
        .begin(rate: 48000), .frames(Self.frames(7, 1)[...], lost: 0), .end,
      ])
  }

  @Test("of what is not taken the oldest is left out and counted")
  func slow() {
    var queue = SoundQueue(limit: 50)
    for start in stride(from: 0, to: 1000, by: 20) {
      queue.append(Self.frames(start, 20), rate: 48000)
    }
    #expect(queue.totalLost == 950)
    #expect(
      Self.drain(&queue) == [
        .begin(rate: 48000), .frames(Self.frames(950, 50)[...], lost: 950),
      ])
    queue.append(Self.frames(0, 1), rate: 48000)
    #expect(Self.drain(&queue) == [.frames(Self.frames(0, 1)[...], lost: 0)])
  }

  @Test("a short silence that nobody was told of is none")
  func merged() {
    var queue = SoundQueue(limit: 50)
    queue.append(Self.frames(0, 1), rate: 48000)
    queue.end()
    queue.append(Self.frames(1, 1), rate: 48000)
    #expect(
      Self.drain(&queue) == [.begin(rate: 48000), .frames(Self.frames(0, 2)[...], lost: 0)])
  }

  @Test("another rate, or a restart, is another stream")
  func rates() {
    var queue = SoundQueue(limit: 50)
    queue.append(Self.frames(0, 2), rate: 48000)
    _ = Self.drain(&queue)
    queue.append(Self.frames(2, 2), rate: 44100)
    #expect(
      Self.drain(&queue) == [
        .end, .begin(rate: 44100), .frames(Self.frames(2, 2)[...], lost: 0),
      ])
    queue.restart()
    #expect(queue.isEmpty, "nothing is said before there is sound")
    queue.append(Self.frames(4, 2), rate: 44100)
    #expect(
      Self.drain(&queue) == [
        .end, .begin(rate: 44100), .frames(Self.frames(4, 2)[...], lost: 0),
      ])
  }

  @Test("after nobody listens there is an end, and nothing of what waited")
  func cleared() {
    var queue = SoundQueue(limit: 50)
    queue.append(Self.frames(0, 2), rate: 48000)
    queue.clear()
    #expect(Self.drain(&queue).isEmpty)
    queue.append(Self.frames(0, 2), rate: 48000)
    _ = Self.drain(&queue)
    queue.append(Self.frames(2, 90), rate: 48000)
    queue.clear()
    #expect(Self.drain(&queue) == [.end])
  }
}
