/// Records of one kind, remembering which of them changed since the last commit.
public struct RecordTable<Key: Hashable & Comparable & Sendable, Record: Hashable & Sendable>:
  Sendable
{
  private var rows: [Key: Record] = [:]
  public private(set) var changed: Set<Key> = []

  public init() {}

  public subscript(key: Key) -> Record? {
    get { rows[key] }
    set {
      guard rows[key] != newValue else { return }
      rows[key] = newValue
      changed.insert(key)
    }
  }

  public var count: Int { rows.count }
  public var isEmpty: Bool { rows.isEmpty }
  public var values: some Collection<Record> { rows.values }
  public var keys: some Collection<Key> { rows.keys }

  /// In key order, so that equal states make equal decisions.
  public var sorted: [Record] {
    rows.sorted { $0.key < $1.key }.map(\.value)
  }

  /// Everything is as the store has it.
  public mutating func markSaved() {
    if !changed.isEmpty { changed = [] }
  }

  /// Takes a record from the store.
  public mutating func load(_ key: Key, _ record: Record) {
    rows[key] = record
  }
}
