/// The states of a whole machine: one named section for each device.
///
/// ```
/// archive = state of { "sections": { NAME: [UInt8], … }, "version": 1 }
/// ```
///
/// Each section is itself a complete saved state, so that one device's section
/// can be opened, or be found damaged, without the others.
public struct StateArchive: Sendable, Equatable {
  private struct Container: Codable {
    var version = 1
    var sections: [String: [UInt8]]
  }

  private var sections: [String: [UInt8]] = [:]

  public init() {}

  /// Opens an archive that `bytes` wrote.
  public init(bytes: some Collection<UInt8>) throws(StateError) {
    let container = try StateDecoder().decode(Container.self, from: bytes)
    guard container.version == 1 else {
      throw StateError(
        kind: .tooNew,
        context: "machine state has version \(container.version), this program reads 1;"
          + " open it with a newer Carrel")
    }
    sections = container.sections
  }

  /// The archive as bytes.
  public func bytes() throws(StateError) -> [UInt8] {
    try StateEncoder().encode(Container(sections: sections))
  }

  /// The names of the sections, sorted.
  public var names: [String] { sections.keys.sorted() }

  /// Adds the section `name`, in place of one of that name.
  public mutating func store(_ state: some Encodable, as name: String) throws(StateError) {
    sections[name] = try StateEncoder().encode(state)
  }

  /// Opens the section `name`; `nil` when the archive has none, as when it was
  /// made by a version of the machine without that device.
  public func state<T: Decodable>(_ type: T.Type, of name: String) throws(StateError) -> T? {
    guard let bytes = sections[name] else { return nil }
    do {
      return try StateDecoder().decode(type, from: bytes)
    } catch {
      throw StateError(kind: error.kind, context: "machine state: section \(name)", cause: error)
    }
  }
}
