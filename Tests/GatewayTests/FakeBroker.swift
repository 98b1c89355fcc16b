import Brokering
import Identity
import LinuxSystem

/// A broker of two users and one ticket, with a record of who came and went.
final class FakeBroker: SessionBroker {
  struct Record {
    var arrived: [(viewer: any ViewerConnection, login: Login)] = []
    var left: [(id: ConnectionID, reason: String)] = []
    var power: [PowerRequest] = []
    var attempts = 0
    var nextID: UInt64 = 1
    var ticket: String? = "sesame23"
  }

  let record = Guarded(Record())

  func authenticate(name: String, password: [UInt8], peer: PeerAddress) async
    -> Result<Login, LoginRefusal>
  {
    record.change { $0.attempts += 1 }
    switch (name, String(decoding: password, as: UTF8.self)) {
    case ("alice", "wonderland"), ("béla", "magyarország"):
      return .success(Login(user: UserName(rawValue: name), pool: nil, peer: peer))
    case ("carol", "christmas"):
      return .failure(LoginRefusal(.disabled, "the account is disabled"))
    default:
      return .failure(LoginRefusal(.wrongPassword, "wrong user name or password"))
    }
  }

  func redeemTicket(challenge: [UInt8], response: [UInt8], peer: PeerAddress) async
    -> Result<Login, LoginRefusal>
  {
    let ticket = record.withLock { $0.ticket }
    guard let ticket,
      SystemCryptography().vncResponse(challenge: challenge, password: Array(ticket.utf8))
        == response
    else { return .failure(LoginRefusal(.noSuchTicket, "the ticket is unknown or expired")) }
    record.withLock { $0.ticket = nil }
    return .success(Login(user: UserName(rawValue: "alice"), pool: nil, peer: peer))
  }

  func authenticateWithoutPassword(user: UserName, peer: PeerAddress) async
    -> Result<Login, LoginRefusal>
  {
    .success(Login(user: user, pool: nil, peer: peer))
  }

  func hasLiveTickets() async -> Bool { record.withLock { $0.ticket != nil } }

  func nextConnectionID() async -> ConnectionID {
    record.withLock { record in
      defer { record.nextID += 1 }
      return ConnectionID(record.nextID)
    }
  }

  func viewerArrived(_ viewer: any ViewerConnection, login: Login) async {
    record.change { $0.arrived.append((viewer, login)) }
    viewer.setName("desk of \(login.user)")
    viewer.showStatus("Starting your desktop", percent: 40)
    viewer.attach(displayLink: "/run/carrel/\(login.user).display")
  }

  func viewerLeft(_ id: ConnectionID, reason: String) async {
    record.change { $0.left.append((id, reason)) }
  }

  func viewerRequestedPower(_ id: ConnectionID, _ request: PowerRequest) async {
    record.change { $0.power.append(request) }
  }

  /// Waits for the viewer that arrived as number `index`.
  func arrival(_ index: Int) async throws -> (viewer: any ViewerConnection, login: Login) {
    try await blocking {
      self.record.wait(until: { $0.arrived.count > index }) { $0.arrived[index] }
    }
  }

  /// Waits for the departure number `index`.
  func departure(_ index: Int) async throws -> (id: ConnectionID, reason: String) {
    try await blocking { self.record.wait(until: { $0.left.count > index }) { $0.left[index] } }
  }
}
