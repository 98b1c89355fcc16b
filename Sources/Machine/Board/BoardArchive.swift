import Snapshot

/// The states that a board is built from, or that it is saved to: one section to
/// a device. An empty one is power-on.
struct BoardArchive {
  private(set) var archive = StateArchive()

  init() {}

  init(_ archive: StateArchive) { self.archive = archive }

  mutating func store(_ state: some Encodable, as name: String) throws {
    try archive.store(state, as: name)
  }

  /// `nil` when there is none of that name.
  func state<State: Decodable>(_ name: String, _ type: State.Type = State.self) throws -> State? {
    try archive.state(type, of: name)
  }
}
