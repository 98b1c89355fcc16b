import Brokering

/// Counts connections that have not logged in, so that no peer, nor all of them
/// together, can use up descriptors and memory. Pure.
package struct Admission: Sendable {
  let strangers: Int
  let strangersPerPeer: Int
  let viewers: Int

  /// By network: an IPv6 host has more addresses than anybody can count.
  private var strangersByPeer: [String: Int] = [:]
  private(set) var strangerCount = 0
  private(set) var viewerCount = 0

  package init(_ limits: GatewayLimits) {
    strangers = limits.strangers
    strangersPerPeer = limits.strangersPerPeer
    viewers = limits.viewers
  }

  /// A connection arrives; `nil` lets it in, otherwise why not.
  package mutating func admit(_ peer: PeerAddress) -> String? {
    if strangerCount >= strangers { return "\(strangers) connections are logging in" }
    if strangersByPeer[peer.network, default: 0] >= strangersPerPeer {
      return "\(strangersPerPeer) connections from this address are logging in"
    }
    strangerCount += 1
    strangersByPeer[peer.network, default: 0] += 1
    return nil
  }

  /// An admitted connection logged in or is gone.
  package mutating func release(_ peer: PeerAddress) {
    guard let count = strangersByPeer[peer.network] else { return }
    strangersByPeer[peer.network] = count > 1 ? count - 1 : nil
    strangerCount -= 1
  }

  /// Someone logged in; `false` when the house is full.
  mutating func seat() -> Bool {
    guard viewerCount < viewers else { return false }
    viewerCount += 1
    return true
  }

  mutating func leave() { viewerCount = max(0, viewerCount - 1) }
}
