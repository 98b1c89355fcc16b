import Snapshot

/// The states that a board is built from, or that it is saved to: one section to
/// a device. An empty one is power-on.
struct BoardArchive {
  /// Takes down the states that a board asks for, to be had without decoding from then on.
  final class Recorder {
    fileprivate var states: [String: Any] = [:]
  }

  private(set) var archive = StateArchive()
  /// What is known without decoding.
  private var decoded: [String: Any] = [:]
  /// What is another one than was saved.
  private var replaced: [String: Any] = [:]
  private let recorder: Recorder?

  init() { recorder = nil }

  init(_ archive: StateArchive, recorder: Recorder? = nil) {
    self.archive = archive
    self.recorder = recorder
  }

  /// The same with what was asked for of a board that was built from it.
  func with(_ recorder: Recorder) -> BoardArchive {
    var archive = BoardArchive(archive)
    archive.decoded = recorder.states
    return archive
  }

  mutating func store(_ state: some Encodable, as name: String) throws {
    try archive.store(state, as: name)
    decoded[name] = nil
    replaced[name] = nil
  }

  /// Has a device be built from another state than the one that was saved.
  mutating func replace<State>(_ name: String, with state: State) { replaced[name] = state }

  /// `nil` when there is none of that name.
  func state<State: Decodable>(_ name: String, _ type: State.Type = State.self) throws -> State? {
    if let state = (replaced[name] ?? decoded[name]) as? State { return state }
    let state = try archive.state(type, of: name)
    if let recorder, let state { recorder.states[name] = state }
    return state
  }
}
