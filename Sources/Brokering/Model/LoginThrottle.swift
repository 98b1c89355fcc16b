/// Who failed to log in how often. Pure; kept in memory: a restart forgets.
///
/// Each failure of a user name or a peer costs that name and peer a growing
/// delay; after a number of failures within the window they are locked out for a while.
public struct LoginThrottle: Sendable {
  public struct Limits: Hashable, Sendable {
    /// Failures before a lock-out.
    public var failures: Int
    /// How long failures count.
    public var windowSeconds: Int
    public var lockoutSeconds: Int

    public init(failures: Int = 5, windowSeconds: Int = 300, lockoutSeconds: Int = 300) {
      self.failures = failures
      self.windowSeconds = windowSeconds
      self.lockoutSeconds = lockoutSeconds
    }
  }

  /// What failures count against.
  public enum Subject: Hashable, Sendable {
    case user(String)
    /// A `PeerAddress`'s network.
    case network(String)

    public static func peer(_ address: PeerAddress) -> Subject { .network(address.network) }
  }

  private struct Account: Sendable {
    var failures = 0
    var last: Timestamp
    var lockedUntil: Timestamp?
  }

  /// Beyond this many subjects the oldest are forgotten: an attacker chooses names.
  public static let mostSubjects = 10_000

  private let limits: Limits
  private var accounts: [Subject: Account] = [:]

  public init(limits: Limits) { self.limits = limits }

  public var count: Int { accounts.count }

  /// When the subjects may try again, if not now.
  public func lockedUntil(_ subjects: [Subject], now: Timestamp) -> Timestamp? {
    subjects.compactMap { accounts[$0]?.lockedUntil }.filter { $0 > now }.max()
  }

  /// Milliseconds to wait before a failure is answered.
  public func delay(_ subjects: [Subject]) -> Int {
    let failures = subjects.compactMap { accounts[$0]?.failures }.max() ?? 0
    return failures == 0 ? 0 : min(100 << min(failures, 5), 2000)
  }

  public mutating func failed(_ subjects: [Subject], now: Timestamp) {
    for subject in subjects {
      var account = accounts[subject] ?? Account(last: now)
      if account.last.adding(seconds: limits.windowSeconds) < now { account.failures = 0 }
      account.failures += 1
      account.last = now
      if account.failures >= allowed(subject) {
        account.lockedUntil = now.adding(seconds: limits.lockoutSeconds)
        account.failures = 0
      }
      accounts[subject] = account
    }
    if accounts.count > Self.mostSubjects { forgetOldest() }
  }

  /// Many people may come from one address.
  private func allowed(_ subject: Subject) -> Int {
    switch subject {
    case .user: limits.failures
    case .network: limits.failures * 4
    }
  }

  public mutating func succeeded(_ subjects: [Subject]) {
    for subject in subjects { accounts[subject] = nil }
  }

  private mutating func forgetOldest() {
    let oldest = accounts.sorted { $0.value.last < $1.value.last }
      .prefix(accounts.count - Self.mostSubjects * 3 / 4)
    for (subject, _) in oldest { accounts[subject] = nil }
  }
}
