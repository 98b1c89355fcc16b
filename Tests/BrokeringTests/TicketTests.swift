import Brokering
import Testing

@Suite("Tickets, and guessing")
struct TicketTests {
  private let alice = UserName(rawValue: "alice")

  private func issue(_ world: inout World, _ secret: String, seconds: Int = 60) throws {
    try world.perform(.issueTicket(alice, nil, secret: secret, seconds: seconds))
  }

  @Test("a ticket works once")
  func once() throws {
    var world = try World.with()
    try issue(&world, "abcdefgh")
    let ticket = try #require(world.site.tickets.values.first)
    try world.perform(.useTicket(ticket.id))
    #expect(throws: BrokerError.self) { try world.perform(.useTicket(ticket.id)) }
    #expect(world.stored.keys.filter { $0.hasPrefix("ticket/") } == [])
  }

  @Test("a ticket expires")
  func expires() throws {
    var world = try World.with()
    try issue(&world, "abcdefgh", seconds: 60)
    #expect(world.site.nextDeadline == world.now.adding(seconds: 60))
    world.pass(seconds: 59)
    #expect(world.site.tickets.count == 1)
    world.pass(seconds: 1)
    #expect(world.site.tickets.isEmpty)
  }

  @Test("two tickets never have the same secret")
  func distinct() throws {
    var world = try World.with()
    try issue(&world, "abcdefgh")
    #expect(throws: BrokerError.self) { try issue(&world, "abcdefgh") }
  }

  @Test("disabling a user takes the tickets away")
  func disabled() throws {
    var world = try World.with()
    try issue(&world, "abcdefgh")
    try world.perform(.setDisabled(alice, true))
    #expect(world.site.tickets.isEmpty)
    #expect(throws: BrokerError.self) { try issue(&world, "ijklmnop") }
  }

  @Test("failures lock a user out for a while, and a success forgives")
  func lockout() {
    var throttle = LoginThrottle(limits: .init(failures: 3, windowSeconds: 60, lockoutSeconds: 90))
    let subjects: [LoginThrottle.Subject] = [.user("alice")]
    var now = Timestamp(milliseconds: 0)
    throttle.failed(subjects, now: now)
    throttle.failed(subjects, now: now)
    throttle.succeeded(subjects)
    for _ in 0..<2 { throttle.failed(subjects, now: now) }
    #expect(throttle.lockedUntil(subjects, now: now) == nil)
    throttle.failed(subjects, now: now)
    #expect(throttle.lockedUntil(subjects, now: now) == now.adding(seconds: 90))
    now = now.adding(seconds: 90)
    #expect(throttle.lockedUntil(subjects, now: now) == nil)
  }

  @Test("failures long ago do not count")
  func window() {
    var throttle = LoginThrottle(limits: .init(failures: 2, windowSeconds: 60, lockoutSeconds: 90))
    let subjects: [LoginThrottle.Subject] = [.user("alice")]
    throttle.failed(subjects, now: Timestamp(milliseconds: 0))
    throttle.failed(subjects, now: Timestamp(milliseconds: 61_000))
    #expect(throttle.lockedUntil(subjects, now: Timestamp(milliseconds: 61_000)) == nil)
  }

  @Test("each failure is answered later than the one before")
  func delays() {
    var throttle = LoginThrottle(limits: .init(failures: 100))
    let subjects: [LoginThrottle.Subject] = [.peer(PeerAddress("10.0.0.1"))]
    var last = -1
    for _ in 0..<4 {
      #expect(throttle.delay(subjects) > last)
      last = throttle.delay(subjects)
      throttle.failed(subjects, now: Timestamp(milliseconds: 0))
    }
    for _ in 0..<50 { throttle.failed(subjects, now: Timestamp(milliseconds: 0)) }
    #expect(throttle.delay(subjects) == 2000)
  }

  @Test("memory for failures is bounded, however many names are tried")
  func bounded() {
    var throttle = LoginThrottle(limits: .init(failures: 2, windowSeconds: 60, lockoutSeconds: 90))
    let recent: [LoginThrottle.Subject] = [.user("recent")]
    for name in 0..<(LoginThrottle.mostSubjects + 1000) {
      throttle.failed([.user("\(name)")], now: Timestamp(milliseconds: Int64(name)))
    }
    let now = Timestamp(milliseconds: 20_000)
    throttle.failed(recent, now: now)
    throttle.failed(recent, now: now)
    #expect(throttle.count <= LoginThrottle.mostSubjects)
    #expect(throttle.lockedUntil(recent, now: now) != nil)
  }
}
