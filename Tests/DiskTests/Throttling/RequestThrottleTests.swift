import Disk
import Testing

@Suite("When a disk's requests may go")
struct RequestThrottleTests {
  private static let second: UInt64 = 1_000_000_000

  /// How many requests of that size go from `start` on in so many nanoseconds, each as soon
  /// as it may.
  private func requests(
    _ throttle: inout RequestThrottle, _ direction: RequestThrottle.Direction = .reading,
    of bytes: Int = 512, from start: UInt64 = 0, for span: UInt64
  ) -> Int {
    var now = start
    var count = 0
    while true {
      let delay = throttle.delay(direction, now: now)
      now += delay
      guard now < start + span, count < 1_000_000 else { return count }
      throttle.count(direction, bytes: bytes)
      count += 1
    }
  }

  @Test("the rate holds in the long run", arguments: [7, 100, 3000] as [UInt64])
  func operations(rate: UInt64) {
    var throttle = RequestThrottle(DiskLimits([.operations: .init(rate)]), now: 0)
    let count = requests(&throttle, for: 100 * Self.second)
    // What may go at once, and the request that is over it, come in addition.
    let expected = Int(rate) * 100
    #expect(expected...expected + Int(rate) / 10 + 1 ~= count)
  }

  @Test("bytes are counted by the size of requests, however large they are")
  func bytes() {
    let limits = DiskLimits([.bytes: .init(1 << 20)])
    for size in [512, 4096, 512 << 10, 4 << 20] {
      var throttle = RequestThrottle(limits, now: 0)
      let moved = requests(&throttle, of: size, for: 64 * Self.second) * size
      #expect(64 << 20...(64 << 20) + (1 << 20) / 10 + size ~= moved)
    }
  }

  @Test("a request after rest goes at once, the next one when it is due")
  func delays() {
    var throttle = RequestThrottle(DiskLimits([.bytes: .init(1000)]), now: 0)
    #expect(throttle.delay(.reading, now: 0) == 0)
    throttle.count(.reading, bytes: 600)
    // 100 of them may be there: the rest runs out in half a second.
    #expect(throttle.delay(.reading, now: 0) == 500_000_000)
    #expect(throttle.delay(.reading, now: 499_000_000) > 0)
    #expect(throttle.delay(.reading, now: 500_000_000) == 0)
  }

  @Test("a burst goes at once after rest, and once only")
  func burst() {
    let limits = DiskLimits([.operations: .init(10, burst: 50)])
    var throttle = RequestThrottle(limits, now: 0)
    #expect(requests(&throttle, for: 1) == 51)
    #expect(requests(&throttle, from: 1, for: 10 * Self.second) == 100)
    // Half of it after half of the rest, and no more than all of it after a long one.
    let soon = 10 * Self.second + 2_500_000_000
    #expect(24...26 ~= requests(&throttle, from: soon, for: 1))
    #expect(requests(&throttle, from: 1_000_000 * Self.second, for: 1) == 51)
  }

  @Test("a long burst has a rate of its own, for its seconds")
  func longBurst() {
    let limits = DiskLimits([.operations: .init(10, burst: 100, burstSeconds: 5)])
    var throttle = RequestThrottle(limits, now: 0)
    // The first second at 100, with a tenth of that at once.
    #expect(100...111 ~= requests(&throttle, for: Self.second))
    let next = requests(&throttle, from: Self.second, for: 3 * Self.second)
    #expect(295...305 ~= next)
    // 500 and what ran out meanwhile are through after five and a half seconds.
    let rest = requests(&throttle, from: 4 * Self.second, for: 16 * Self.second)
    #expect(255...320 ~= rest)
    #expect(99...101 ~= requests(&throttle, from: 20 * Self.second, for: 10 * Self.second))
  }

  @Test("reads and writes are limited alone, or share a limit")
  func directions() {
    var throttle = RequestThrottle(DiskLimits([.writes: .init(10)]), now: 0)
    #expect(requests(&throttle, .writing, for: Self.second) <= 12)
    #expect(throttle.delay(.reading, now: Self.second) == 0)
    throttle = RequestThrottle(DiskLimits([.operations: .init(10)]), now: 0)
    #expect(requests(&throttle, .writing, for: Self.second) <= 12)
    #expect(throttle.delay(.reading, now: Self.second - 50_000_000) > 0)
  }

  @Test("of several limits the strictest holds")
  func several() {
    let limits = DiskLimits([.bytesRead: .init(1 << 20), .operations: .init(10)])
    var throttle = RequestThrottle(limits, now: 0)
    #expect(99...103 ~= requests(&throttle, of: 512, for: 10 * Self.second))
    throttle = RequestThrottle(limits, now: 0)
    #expect(20...22 ~= requests(&throttle, of: 512 << 10, for: 10 * Self.second))
  }

  @Test("large requests are several operations where a size is given")
  func operationSize() {
    let limits = DiskLimits([.operations: .init(100)], operationSize: 4096)
    var throttle = RequestThrottle(limits, now: 0)
    #expect(1000...1012 ~= requests(&throttle, of: 512, for: 10 * Self.second))
    throttle = RequestThrottle(limits, now: 0)
    #expect(250...255 ~= requests(&throttle, of: 16384, for: 10 * Self.second))
  }

  @Test("a change neither gives what was used already nor holds it against anybody for long")
  func change() {
    var throttle = RequestThrottle(DiskLimits([.operations: .init(10, burst: 100)]), now: 0)
    #expect(requests(&throttle, for: 1) == 101)
    // The same again is no new burst.
    throttle.change(to: DiskLimits([.operations: .init(10, burst: 100)]), now: 1)
    #expect(requests(&throttle, from: 1, for: 1) <= 1)
    // A slower rate counts from now on: one goes, the next after its time.
    throttle.change(to: DiskLimits([.operations: .init(1)]), now: 2)
    #expect(throttle.delay(.reading, now: 2) == 0)
    throttle.count(.reading, bytes: 512)
    #expect(900_000_000...1_000_000_001 ~= throttle.delay(.reading, now: 2))
    // A faster one shortens what is to be waited for.
    throttle.change(to: DiskLimits([.operations: .init(1000)]), now: 3)
    #expect(throttle.delay(.reading, now: 3) == 0)
    // What was not limited before starts afresh.
    throttle.change(to: DiskLimits([.bytes: .init(1 << 20)]), now: 4)
    #expect(throttle.delay(.reading, now: 4) == 0)
  }

  @Test("no numbers make it overflow")
  func extremes() {
    let most = DiskLimits.greatest
    var throttle = RequestThrottle(
      DiskLimits([.bytes: .init(1), .operations: .init(1, burst: most)], operationSize: 1), now: 0)
    for _ in 0..<1000 { throttle.count(.writing, bytes: .max) }
    throttle.count(.writing, bytes: .min)
    #expect(throttle.delay(.writing, now: 0) > 1_000_000 * Self.second)
    #expect(throttle.delay(.writing, now: .max) < .max)
  }

  @Test(
    "limits that cannot be are refused with the reason",
    arguments: [
      (
        DiskLimits([.bytes: .init(1), .bytesRead: .init(1)]),
        "bps limits reads and writes together: leave it out, or bps-rd and bps-wr"
      ),
      (DiskLimits([.operations: .init(1), .writes: .init(1)]), "iops-rd and iops-wr"),
      (DiskLimits([.reads: .init(0, burst: 5)]), "burst above iops-rd: give that too"),
      (DiskLimits([.reads: .init(6, burst: 5)]), "iops-rd-max is a burst above iops-rd: give 6"),
      (DiskLimits([.bytes: .init(6, burstSeconds: 5)]), "bps-max-length is how long bps-max"),
      (DiskLimits([.bytes: .init(6, burst: 7, burstSeconds: 0)]), "bps-max-length of 0 s"),
      (
        DiskLimits([.bytes: .init(6, burst: 1 << 40, burstSeconds: .max)]),
        "cannot be with bps-max 1099511627776"
      ),
      (DiskLimits([.bytes: .init(.max)]), "bps can be 1000000000000000 at most"),
      (DiskLimits([.bytes: .init(1)], operationSize: 512), "iops-size says what an operation is"),
    ])
  func refused(limits: DiskLimits, reason: String) {
    let error = #expect(throws: DiskError.self) { try limits.validate() }
    #expect(error?.kind == .limits)
    #expect(error?.context.contains(reason) == true, "\(error?.context ?? "")")
  }

  @Test("limits of each direction go together with others' quantities")
  func allowed() throws {
    try DiskLimits().validate()
    try DiskLimits([.bytes: .init(9, burst: 9), .reads: .init(1), .writes: .init(2)]).validate()
    try DiskLimits(
      [.operations: .init(1, burst: 1000, burstSeconds: 60)], operationSize: 1
    ).validate()
  }
}
