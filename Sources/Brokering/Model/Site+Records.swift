/// The site as key-value pairs.
extension Site {
  /// Takes a value that the store holds. Unknown keys are another version's: an error.
  public mutating func load(_ value: StoredValue, coding: any RecordCoding) throws(StoreError) {
    let kind = value.key.prefix { $0 != "/" }
    do {
      switch kind {
      case "pool":
        let pool = try coding.decode(Pool.self, from: value.bytes)
        pools.load(pool.name, pool)
      case "desktop":
        let desktop = try coding.decode(Desktop.self, from: value.bytes)
        desktops.load(desktop.id, desktop)
      case "user":
        let user = try coding.decode(User.self, from: value.bytes)
        users.load(user.name, user)
      case "entitlement":
        let entitlement = try coding.decode(Entitlement.self, from: value.bytes)
        entitlements.load(entitlement, entitlement)
      case "session":
        let session = try coding.decode(Session.self, from: value.bytes)
        sessions.load(session.id, session)
      case "ticket":
        let ticket = try coding.decode(Ticket.self, from: value.bytes)
        tickets.load(ticket.id, ticket)
      case "history":
        let history = try coding.decode([Decision].self, from: value.bytes)
        histories.load(UserName(rawValue: String(value.key.dropFirst(kind.count + 1))), history)
      case "counters":
        counters.load(Counters.key, try coding.decode(Counters.self, from: value.bytes))
      default:
        throw StoreError(
          .newer,
          "the database holds '\(value.key)', which this Carrel does not know: "
            + "use the version that wrote it")
      }
    } catch let error as StoreError {
      throw error
    } catch {
      throw StoreError(
        .corrupt, "the record '\(value.key)' in the database cannot be read: restore a backup",
        cause: error)
    }
  }

  /// The writes that bring the store to this state.
  public func pendingWrites(
    coding: any RecordCoding
  ) throws(StoreError) -> [StoreTransaction.Write] {
    var writes: [StoreTransaction.Write] = []
    do {
      try collect(pools, "pool", { $0.rawValue }, coding, into: &writes)
      try collect(users, "user", { $0.rawValue }, coding, into: &writes)
      try collect(
        entitlements, "entitlement", { "\($0.user)/\($0.pool)" }, coding, into: &writes)
      try collect(desktops, "desktop", { $0.rawValue }, coding, into: &writes)
      try collect(sessions, "session", { $0.rawValue }, coding, into: &writes)
      try collect(tickets, "ticket", { $0.rawValue }, coding, into: &writes)
      try collect(histories, "history", { $0.rawValue }, coding, into: &writes)
      try collect(counters, nil, { $0 }, coding, into: &writes)
    } catch {
      throw StoreError(.failed, "a record cannot be encoded", cause: error)
    }
    return writes
  }

  private func collect<Key, Record: Encodable>(
    _ table: RecordTable<Key, Record>, _ kind: String?, _ name: (Key) -> String,
    _ coding: any RecordCoding, into writes: inout [StoreTransaction.Write]
  ) throws {
    for key in table.changed.sorted() {
      let path = kind.map { "\($0)/\(name(key))" } ?? name(key)
      if let record = table[key] {
        writes.append(.put(key: path, bytes: try coding.encode(record), lease: nil))
      } else {
        writes.append(.delete(key: path))
      }
    }
  }

  public mutating func markSaved() {
    pools.markSaved()
    users.markSaved()
    entitlements.markSaved()
    desktops.markSaved()
    sessions.markSaved()
    tickets.markSaved()
    histories.markSaved()
    counters.markSaved()
  }
}
